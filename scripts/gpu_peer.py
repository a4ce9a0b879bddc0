"""The contender of gpu-bench.sh: transformers with hooks before its output projections, on the same card in bf16.

    python scripts/gpu_peer.py CONFIG.json JOB [DEVICE]

JOB is J1 (100 prompts of 128 tokens, 256 new ones; generate() with a growing cache and, where they run, with a static
cache, for which it compiles, and with continuous batching), J2 (200 texts of 1000 tokens, per-head norms) or J3 (part
of a causal map: 5 layers x 4 heads x 2 lambdas on 8 texts of 640 tokens). Weights are random: speed does not depend on
them. Prints one JSON object: seconds of the job at the fastest batch size tried, the median of several runs (one run
if it takes long). WAYS=static leaves out continuous batching, an empty WAYS= both.
"""

import contextlib
import json
import os
import statistics
import sys
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

# All prompts of J1 together where they fit: two batches of half the size took four times as long on an H200.
BATCHES = {"J1": [100, 50, 25], "J2": [32, 16, 8, 4], "J3": [8, 4, 2, 1]}
RUNS = 3
PATIENCE = 15  # seconds after which no run is repeated


def projections(model):
    """The output projection of every layer, and the width of the heads that it reads."""
    config = model.config.get_text_config()
    for layer in model.get_decoder().layers:
        if hasattr(layer, "linear_attn"):
            yield layer.linear_attn.out_proj, layer.linear_attn.out_proj.in_features // config.linear_num_value_heads
        else:
            yield layer.self_attn.o_proj, layer.self_attn.o_proj.in_features // config.num_attention_heads


class Hooks:
    """Pre-hooks on every output projection; it is an error if one was not called."""

    def __init__(self, model, make):
        self.calls = 0
        self.parts = list(projections(model))
        self.handles = [
            module.register_forward_pre_hook(self.counted(make(index, module, dim)))
            for index, (module, dim) in enumerate(self.parts)
        ]

    def counted(self, hook):
        def run(module, args):
            if not torch.compiler.is_compiling():  # a guard on this counter would recompile at every call
                self.calls += 1
            return hook(module, args)

        return run

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for handle in self.handles:
            handle.remove()
        assert kind or self.calls >= len(self.parts), "a hook was not called"


def scaling(factor_of):
    """Scales one head in every layer, as our own plans do."""

    def make(index, module, dim):
        scale = module.weight.new_ones(module.in_features)
        scale[:dim] = factor_of(index)
        return lambda _, args: (args[0] * scale,)

    return make


def wait():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(work):
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def median(work, seconds):
    """The median of a few runs; `seconds` holds those already done."""
    while len(seconds) < RUNS and sum(seconds) < PATIENCE:
        seconds.append(timed(work))
    return statistics.median(seconds)


def grown(model, part, new):
    out = model.generate(part, attention_mask=torch.ones_like(part), max_new_tokens=new)
    assert out.shape[1] == part.shape[1] + new


def static(model, part, new):
    out = model.generate(part, attention_mask=torch.ones_like(part), max_new_tokens=new, cache_implementation="static")
    assert out.shape[1] == part.shape[1] + new


def continuous(model, part, new):
    settings = GenerationConfig(do_sample=False, pad_token_id=0, eos_token_id=-1, max_new_tokens=new)
    # Its cache and graphs are kept from one call to the next.
    found = model.generate_batch(part.tolist(), settings, progress_bar=False, persistent_manager=True)
    assert len(found) == len(part) and all(len(one.generated_tokens) == new for one in found.values())


def best(job, work_of):
    """
    The best batch size and its seconds for the job, the median of several runs. After a warm-up, each size is run once,
    from the largest down, until a smaller one is no faster; a size that does not fit is left out.
    """
    found = {}
    for batch in BATCHES[job]:
        try:
            if not found:
                work_of(batch)()
            found[batch] = timed(work_of(batch))
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            continue
        if job == "J1" or found[batch] > min(found.values()):
            break
    batch = min(found, key=found.get)
    return {"seconds": median(work_of(batch), [found[batch]]), "batch": batch, "tried": found}


def main():
    if len(sys.argv) not in (3, 4) or sys.argv[2] not in BATCHES:
        sys.exit(__doc__.strip())
    device = sys.argv[3] if len(sys.argv) > 3 else "cuda"
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(sys.argv[1]).get_text_config()
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0, eos_token_id=None)
    vocab = config.vocab_size
    ids = lambda rows, tokens: torch.randint(1, vocab, (rows, tokens), device=device)  # noqa: E731
    job = sys.argv[2]
    if job == "J1":
        prompts, new = ids(100, 128), 256

        def work_of(batch, way=grown):
            def work():
                for part in prompts.split(batch):
                    way(model, part, new)

            return work

        # Around all runs: graphs that one run captures and the next plays back call no hook again.
        def hooked():
            return Hooks(model, scaling(lambda _: 0.5))

        with hooked():
            found = best(job, work_of)
        found |= {"tokens": 100 * new, "way": "grown", "note": "one plan; 20 plans are 20 times as long"}
        ways = {"grown": found["seconds"]}
        asked = os.environ.get("WAYS", "static,continuous")
        for way in (way for way in (static, continuous) if way.__name__ in asked):
            batch = len(prompts) if way is continuous else found["batch"]  # it splits them by itself
            try:
                with hooked():
                    work_of(batch, way)()
                    ways[way.__name__] = median(work_of(batch, way), [])
            except Exception as error:  # noqa: BLE001: a contender's fault is told, the others count
                ways[way.__name__] = f"{type(error).__name__}: {error}"[:300]
        measured = {way: seconds for way, seconds in ways.items() if isinstance(seconds, float)}
        way = min(measured, key=measured.get)
        found |= {"seconds": measured[way], "way": way, "ways": ways}
    elif job == "J2":
        texts = ids(200, 1000)

        def work_of(batch):
            def norms(_, module, dim):
                def hook(_, args):
                    kept.append(args[0].unflatten(-1, (-1, dim))[:, -32:].float().norm(dim=-1).mean(1))

                return hook

            def work():
                for part in texts.split(batch):
                    kept.clear()
                    with Hooks(model, norms):
                        h_last = model.get_decoder()(input_ids=part, use_cache=False).last_hidden_state[:, -1]
                    torch.cat(kept, 1).cpu(), h_last.float().cpu()

            kept = []
            return work

        found = best(job, work_of) | {"tokens": 200_000}
    else:
        texts, layers = ids(8, 640), sorted({int(i * (config.num_hidden_layers - 1) / 4) for i in range(5)})
        cells = [(layer, head, factor) for layer in layers for head in range(4) for factor in (0.0, 0.5)]

        def log_probs(part):
            hidden = model.get_decoder()(input_ids=part, use_cache=False).last_hidden_state[:, 127:-1]
            return model.get_output_embeddings()(hidden).float().log_softmax(-1)

        def work_of(batch):
            def work():
                for part in texts.split(batch):
                    base, target = log_probs(part), part[:, 128:, None]
                    for layer, head, factor in cells:

                        def make(index, module, dim, cell=(layer, head, factor)):
                            scale = module.weight.new_ones(module.in_features)
                            if index == cell[0]:
                                scale[cell[1] * dim : (cell[1] + 1) * dim] = cell[2]
                            return lambda _, args: (args[0] * scale,)

                        with Hooks(model, make):
                            found = log_probs(part)
                        delta = (found.gather(-1, target) - base.gather(-1, target)).sum()
                        divergence = (base.exp() * (base - found)).sum()
                        delta.item(), divergence.item()

            return work

        found = best(job, work_of) | {"tokens": len(cells) * 8 * 512}
    card = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return {"job": job, "config": sys.argv[1], "card": card, "torch": torch.__version__} | found


if __name__ == "__main__":
    # Not inference mode: continuous batching cannot use its tensors in its own thread. What libraries print goes to stderr.
    with torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
        result = main()
    print(json.dumps(result), flush=True)
    # Threads of continuous batching may still wait for work.
    os._exit(0)
