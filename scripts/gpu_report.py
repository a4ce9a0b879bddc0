"""The results of gpu-bench.sh as tables with its goals: ratios to transformers with hooks, shares of the card's limits.

    python3 scripts/gpu_report.py RESULTS.jsonl TEMPER

Needs nothing but Python. Limits come from the card's own copy and product in the same results, and from the models'
shapes. Goals that were not met are marked as missed; a line that is not in the results is not in the tables.
"""

import json
import os
import subprocess
import sys

# Of J1: the shares of copy and product that fast engines reach, and the seconds of a graph node and of the rest of a step.
PREDICTED = {"copy": 0.75, "product": 0.62, "node": 1.2e-6, "step": 60e-6}
PROMPT, NEW = 128, 256  # tokens of J1
TEXTS, LENGTH = 200, 1000  # of J2


class Model:
    """The shape of a model in bf16, from `temper inspect`."""

    def __init__(self, config, temper):
        shape = json.loads(subprocess.run([temper, "inspect", config, "--json"], check=True, capture_output=True).stdout)
        self.layers = shape["layers"]
        self.weights = shape["weight_bytes"]
        self.trunk = self.weights - 2 * shape["vocab"] * shape["d_model"]  # without the head, at 2 bytes and 2 operations a weight

    def read(self, context):
        """Bytes of cache and states that one row reads and writes in a step."""
        total = 0
        for layer in self.layers:
            if layer["mixer"] == "delta":
                total += 2 * 4 * layer["heads"] * layer["key_dim"] * layer["head_dim"]
            else:
                total += 2 * 2 * layer["kv_heads"] * layer["head_dim"] * min(context, layer.get("window", context))
        return total

    def step(self, rows, context, copy, product):
        """Seconds of a decode step: the longer of reading the weights and the arithmetic, plus each row's own bytes."""
        return max(self.weights / copy, self.weights * rows / product) + rows * self.read(context) / copy

    def attention(self, length):
        """Operations of attention over one text."""
        total = 0
        for layer in (layer for layer in self.layers if layer["mixer"] != "delta"):
            window = min(layer.get("window", length), length)
            pairs = window * (window + 1) / 2 + (length - window) * window
            total += 4 * layer["heads"] * layer["head_dim"] * pairs
        return total


def verdict(value, goal):
    return "met" if value >= goal else "**missed**"


def table(title, head, rows):
    if not rows:
        return
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    with open(sys.argv[1]) as file:
        results = [json.loads(line) for line in file if line.startswith("{")]
    kernels = [r for r in results if "kernel" in r]
    ceilings = {r["kernel"]: r for r in kernels if r["kernel"].startswith("ceiling")}
    if len(ceilings) < 2:
        sys.exit("the results have no ceilings: target/cuda/kernels-bench ceilings measures them")
    copy = ceilings["ceiling: copy"]["GB/s"] * 1e9
    product = ceilings["ceiling: product"]["TFLOP/s"] * 1e12
    print(f"Copy {copy / 1e12:.2f} TB/s, product {product / 1e12:.0f} TFLOP/s in bf16: all shares are of these.")

    goals = {"decode attention": 0.8, "delta rule step": 0.8, "delta net step": 0.8}
    rows = []
    for r in kernels:
        if r["kernel"].startswith("ceiling"):
            continue
        unit = next(unit for unit in ("GB/s", "TFLOP/s", "k/s") if unit in r)
        goal = goals.get(r["kernel"])
        # A few rows do not fill a card: the goal is for batches.
        rows_of = int(r["shape"].split(", ")[-1].split()[0]) if goal else 0
        judged = verdict(r["of_ceiling"], goal) if goal and rows_of >= 256 else ""
        share = f"{r['of_ceiling']:.2f}" + (" of the first's time" if unit == "k/s" else "")
        rows.append((r["kernel"], r["shape"], r["us"], f"{r[unit]:.4g} {unit}", share, judged))
    table("Kernels", ("kernel", "shape", "µs", "rate", "share", "goal 0.80"), rows)

    models = {}
    peers = {(os.path.basename(r["config"]).removesuffix(".json"), r["job"]): r for r in results if "torch" in r}

    def model(name):
        if name not in models:
            models[name] = Model(f"configs/models/{name}.json", sys.argv[2])
        return models[name]

    rows = []
    for r in (r for r in results if "decode" in r):
        for d in r["decode"]:
            shape = model(r["model"])
            n, tokens = d["rows"], d.get("new_tokens", NEW)
            new = n * tokens / d["tokens_per_s"]  # seconds of the whole
            together = min(n, d.get("at_once", n))
            shared = d.get("shared_tokens", 0)  # read once
            reading = shape.trunk * (n * (PROMPT - shared) + shared) / product
            step = shape.step(together, PROMPT + tokens / 2, copy, product) * n / together
            reached = (PREDICTED["copy"] * copy, PREDICTED["product"] * product)
            predicted = shape.step(together, PROMPT + tokens / 2, *reached)
            predicted = (predicted + PREDICTED["node"] * d["launches"] + PREDICTED["step"]) * n / together
            limit, expected = reading + tokens * step, reading / PREDICTED["product"] + tokens * predicted
            # The contender ran 100 prompts under one plan; 20 plans take it 20 times as long.
            peer = peers.get((r["model"], "J1")) if n in (100, 2000) and not shared else None
            to = lambda seconds: d["tokens_per_s"] * seconds / peer["tokens"]  # noqa: E731
            ratio = to(peer["seconds"]) if peer else None
            # Against plain generate(), and against its fastest way, which the goal is about.
            usual = f"{to(peer['ways']['grown']):.1f}" if peer else ""

            def judged(value, goal, form, of=d):
                # Goals apply only to steps done in the default way.
                return f"{value:{form}} {verdict(value, goal)}" if of["plays"] else f"{value:{form}}"

            rows.append(
                (
                    r["model"],
                    f"{n}, {shared} tokens shared" if shared else n,
                    d["plans"],
                    "recorded" if d["plays"] else "one by one",
                    d["launches"] or "",
                    f"{d['tokens_per_s']:.0f}",
                    usual,
                    f"{judged(ratio, 10, '.1f')}, {peer['way']}" if ratio else "",
                    judged(limit / new, 0.7, ".2f"),
                    f"{expected / new:.2f}",
                    f"{d['step_to_first']:.3f}",
                )
            )
    head = ("model", "rows", "plans", "steps", "launches", "tokens/s", "to generate()", "to its fastest way, goal 10", "of the limit, goal 0.70")
    table("J1: answers", (*head, "of what was predicted", "time to the first's"), rows)
    flat = [
        (r["model"], max(abs(d["step_to_first"] - 1) for d in r["decode"]))
        for r in results
        if "decode" in r and len(r["decode"]) > 2
    ]
    table(
        "J1: a step under more plans",
        ("model", "most off", "goal 0.03"),
        [(name, f"{off:.3f}", verdict(-off, -0.03)) for name, off in flat],
    )

    rows = []
    for r in (r for r in results if r.get("ours")):
        name, job = os.path.basename(r["config"]).removesuffix(".json"), r["job"]
        peer = peers.get((name, job))
        goal = {"J2": 3, "J3": 4}[job]
        ratio = peer["seconds"] / r["seconds"] if peer else None
        share = limit = ""
        if r["seconds"] <= 0:
            print(f"\n{job} of {name}: twice the work took no longer than once; the machine was not quiet")
            continue
        if job == "J2":
            shape = model(name)
            least = TEXTS * (LENGTH * shape.trunk + shape.attention(LENGTH)) / product
            share = f"{least / r['seconds']:.2f} {verdict(least / r['seconds'], 0.45)}"
            limit = f"{least:.2f}, {least / PREDICTED['product']:.2f}"
        theirs = f"{peer['seconds']:.2f} at {peer['batch']}" if peer else ""
        judged = f"{ratio:.1f} {verdict(ratio, goal)}" if ratio else ""
        rows.append((job, name, f"{r['seconds']:.2f}", theirs, judged, goal, share, limit))
    table(
        "J2: features and head statistics; J3: part of the causal map",
        ("job", "model", "s", "transformers, s", "ratio", "goal", "of the product, goal 0.45", "limit and predicted, s"),
        rows,
    )


if __name__ == "__main__":
    main()
