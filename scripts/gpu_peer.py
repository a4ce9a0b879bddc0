"""The contender of gpu-bench.sh: transformers with hooks before its output projections, on the same card in bf16.

    python scripts/gpu_peer.py CONFIG.json JOB

JOB is J1 (100 prompts of 128 tokens, 256 new ones, 1 and 20 plans), J2 (200 texts of 1000 tokens, per-head norms) or J3 (part
of a causal map: 5 layers x 4 heads x 2 lambdas on 8 texts of 640 tokens). Weights are random: speed does not depend on them.
Prints one JSON object: seconds of the job, of several runs the median, at the batch that was fastest of those tried.
"""

import json
import statistics
import sys
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

BATCHES = {"J1": [25, 50, 100], "J2": [4, 8, 16, 32], "J3": [1, 2, 4, 8]}
RUNS = 3


def projections(model):
    """The output projection of every layer, and the width of the heads that it reads."""
    config = model.config.get_text_config()
    for layer in model.get_decoder().layers:
        if hasattr(layer, "linear_attn"):
            yield layer.linear_attn.out_proj, layer.linear_attn.out_proj.in_features // config.linear_num_value_heads
        else:
            yield layer.self_attn.o_proj, layer.self_attn.o_proj.in_features // config.num_attention_heads


class Hooks:
    """Pre-hooks on every output projection that were all called, or an error."""

    def __init__(self, model, make):
        self.calls = 0
        self.parts = list(projections(model))
        self.handles = [
            module.register_forward_pre_hook(self.counted(make(index, module, dim)))
            for index, (module, dim) in enumerate(self.parts)
        ]

    def counted(self, hook):
        def run(module, args):
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
    """λ of one head in every layer, as the product's own plans are."""

    def make(index, module, dim):
        scale = module.weight.new_ones(module.in_features)
        scale[:dim] = factor_of(index)
        return lambda _, args: (args[0] * scale,)

    return make


def timed(work):
    work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def best(job, work_of):
    """Seconds of the job at the best batch, and which that is; a batch that does not fit is left out."""
    found = {}
    for batch in BATCHES[job]:
        try:
            found[batch] = statistics.median(timed(work_of(batch)) for _ in range(RUNS))
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    batch = min(found, key=found.get)
    return {"seconds": found[batch], "batch": batch, "tried": found}


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in BATCHES:
        sys.exit(__doc__.strip())
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(sys.argv[1]).get_text_config()
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0, eos_token_id=None)
    vocab = config.vocab_size
    ids = lambda rows, tokens: torch.randint(1, vocab, (rows, tokens), device="cuda")  # noqa: E731
    job = sys.argv[2]
    if job == "J1":
        prompts, new = ids(100, 128), 256

        def work_of(batch):
            def work():
                with Hooks(model, scaling(lambda _: 0.5)):
                    for part in prompts.split(batch):
                        out = model.generate(part, attention_mask=torch.ones_like(part), max_new_tokens=new)
                        assert out.shape[1] == 128 + new

            return work

        found = best(job, work_of) | {"tokens": 100 * new, "note": "one plan; 20 plans are 20 times as long"}
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
    card = torch.cuda.get_device_name()
    print(json.dumps({"job": job, "config": sys.argv[1], "card": card, "torch": torch.__version__} | found))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
