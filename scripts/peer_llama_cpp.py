"""llama.cpp as a contender of bench_peers.py, through llama-cpp-python's low-level calls, one task per process.

    python scripts/peer_llama_cpp.py SPEC.json

Reads its task from SPEC.json and prints one JSON object. llama.cpp has no hooks at heads: sixteen rows are decoded as
sixteen sequences of one batch, untouched. Keys and values are kept in f16, its default; everything else is default too.
Exits 3 if this llama.cpp cannot run the file; stderr has the reason.
"""

import json
import pathlib
import sys
import time

UNABLE = 3


class Context:
    """A model, with room for the task's sequences."""

    def __init__(self, spec):
        import llama_cpp

        self.lib = lib = llama_cpp
        lib.llama_backend_init()
        start = time.perf_counter()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(spec["gguf"].encode(), params)
        if not self.model:
            sys.exit(UNABLE)
        rows, tokens = spec["rows"], len(spec["prompt"]) + spec["new_tokens"] + 1
        params = lib.llama_context_default_params()
        params.n_seq_max = rows
        params.n_ctx = rows * -(-tokens // 256) * 256  # each sequence has its own share, a multiple of 256
        params.n_batch = params.n_ubatch = max(512, len(spec["prompt"]))
        params.n_threads = params.n_threads_batch = spec["threads"]
        self.context = lib.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit(UNABLE)
        self.load_s = time.perf_counter() - start
        self.vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.batch = lib.llama_batch_init(params.n_batch, 0, 1)

    def forward(self, tokens, position, rows):
        """One pass over (token, row) pairs; each row's tokens begin at `position`. Returns the likeliest next tokens."""
        import numpy

        batch, last, places = self.batch, {}, dict.fromkeys(rows, position)
        batch.n_tokens = len(tokens)
        for i, (token, row) in enumerate(zip(tokens, rows, strict=True)):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, places[row], 1, row
            batch.logits[i] = 0
            places[row], last[row] = places[row] + 1, i
        for i in last.values():
            batch.logits[i] = 1
        status = self.lib.llama_decode(self.context, batch)
        assert status == 0, f"llama_decode ended with {status}"
        logits = (self.lib.llama_get_logits_ith(self.context, i) for i in last.values())
        return [int(numpy.ctypeslib.as_array(one, (self.vocab,)).argmax()) for one in logits]

    def clear(self):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)


def prefill(spec, context):
    prompt, rates = spec["prompt"], []
    for turn in range(spec["repeat"] + 1):
        context.clear()
        start = time.perf_counter()
        answer = context.forward(prompt, 0, [0] * len(prompt))
        if turn > 0:  # the first run warms up
            rates.append(len(prompt) / (time.perf_counter() - start))
    return {"tokens_per_s": rates, "answers": [answer]}


def decode(spec, context):
    """Steps of greedy decoding after a prompt, all rows at once."""
    prompt, rows, steps = spec["prompt"], list(range(spec["rows"])), []
    answers = [sum((context.forward(prompt, 0, [row] * len(prompt)) for row in rows), [])]
    for step in range(spec["new_tokens"]):
        start = time.perf_counter()
        answers.append(context.forward(answers[-1], len(prompt) + step, rows))
        steps.append(1000 * (time.perf_counter() - start))
    return {"step_ms": steps, "answers": [list(row) for row in zip(*answers)]}


def probe(spec, context):
    """Tests whether this llama.cpp runs the file; returns its version and system."""
    context.forward(spec["prompt"], 0, [0] * len(spec["prompt"]))
    system = context.lib.llama_print_system_info().decode().strip().rstrip("|").strip()
    return {"version": f"llama-cpp-python {context.lib.__version__}{commit(context.lib)}", "system": system}


def commit(lib):
    """The commit of llama.cpp that the package was built from, as told by a library that it ships."""
    import ctypes

    for path in sorted((pathlib.Path(lib.__file__).parent / "lib").glob("*ggml-base.*")):
        tell = ctypes.CDLL(str(path)).ggml_commit
        tell.restype = ctypes.c_char_p
        return f", llama.cpp {tell().decode()}"
    return ""


TASKS = {"prefill": prefill, "decode1": decode, "decode16": decode, "probe": probe}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    spec = json.loads(pathlib.Path(sys.argv[1]).read_text())
    context = Context(spec)
    found = TASKS[spec["task"]](spec, context)
    told = {"load_s": context.load_s, "weights_mb": context.lib.llama_model_size(context.model) / 1e6}
    print(json.dumps(found | told | {"threads": context.lib.llama_n_threads(context.context)}))


if __name__ == "__main__":
    main()
