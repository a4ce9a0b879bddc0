"""Measures this machine's limits at a number of threads: memory reads and matrix products, by torch.

    python scripts/peer_limits.py THREADS

Prints one JSON object: GB/s of summing an array of 512 MiB (which no cache holds), and GFLOP/s of 2048 x 2048
matrices in f32 and in bf16. The best of several runs: a limit is what can be done, not what busy neighbours left.
"""

import json
import sys
import time

ARRAY_BYTES = 512 << 20
SIDE = 2048
REPEATS = 12


def best_s(work):
    times = []
    for _ in range(REPEATS + 1):  # the first run touches pages and starts threads
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    import torch

    torch.set_num_threads(int(sys.argv[1]))
    array = torch.ones(ARRAY_BYTES // 4)
    found = {"threads": torch.get_num_threads(), "read_gb_s": ARRAY_BYTES / best_s(array.sum) / 1e9}
    for name, dtype in {"f32": torch.float32, "bf16": torch.bfloat16}.items():
        a, b = (torch.rand(SIDE, SIDE).to(dtype) for _ in range(2))
        found[f"matmul_{name}_gflop_s"] = 2 * SIDE**3 / best_s(lambda a=a, b=b: a @ b) / 1e9
    print(json.dumps(found))


if __name__ == "__main__":
    main()
