"""What transformers loses in 16 bits: how far its own bfloat16 and float16 are from the float32 of a golden file.

    python scripts/golden/halves.py tests/golden/llama tests/golden/qwen3 tests/golden/qwen3_5 tests/golden/gemma4

Writes halves.json beside each golden.safetensors: for each type the largest 1 - cosine of a token's vector, by quantity,
and the share of tokens whose top token differs (`top`). Random weights may amplify rounding a thousandfold, so no fixed
tolerance would be fair to an engine in 16 bits. Runs on the CPU, with eager attention.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

LAMBDAS = {"half": 0.5, "zero": 0.0}


def off(ours, theirs):
    ours, theirs = ours.double(), theirs.double()
    if theirs.dim() < ours.dim():
        ours = ours[-1]
    return (1 - torch.nn.functional.cosine_similarity(ours, theirs, dim=-1)).max().item()


class Model:
    """A model whose heads can be scaled, and the inputs of its output projections."""

    def __init__(self, directory, layers, dtype):
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="eager").eval()
        self.plan, self.z = {}, {}
        modules = [m for name, m in self.model.named_modules() if name.endswith((".o_proj", ".out_proj"))]
        assert len(modules) == len(layers)
        for layer, module in zip(layers, modules):
            module.register_forward_pre_hook(self.hook(layer))

    def hook(self, layer):
        def scale(_, inputs):
            z = inputs[0].clone()
            for head, factor in self.plan.get(layer["index"], []):
                z[..., head * layer["head_dim"] : (head + 1) * layer["head_dim"]] *= factor
            self.z[layer["index"]] = z[0]
            return (z,)

        return scale

    def run(self, ids, plan):
        self.plan = {}
        for layer, head, *factor in plan:
            self.plan.setdefault(layer, []).append((head, factor[0]))
        with torch.no_grad():
            return self.model(ids[None], output_hidden_states=True, use_cache=False)


def measure(directory, golden, meta, dtype):
    model, worst, tops = Model(directory, meta["layers"], dtype), {}, [0, 0]

    def note(quantity, ours, theirs):
        worst[quantity] = max(worst.get(quantity, 0.0), off(ours, theirs))
        if quantity in ("logits", "tempered"):
            ours = ours if ours.dim() == theirs.dim() else ours[-1]
            other = ours.float().argmax(-1) != theirs.argmax(-1)
            tops[0] += int(other.sum())
            tops[1] += other.numel()

    for i in range(len(meta["sequences"])):
        ids, seq = golden[f"seq{i}.input_ids"], f"seq{i}."
        out = model.run(ids, [])
        note("logits", out.logits[0], golden[seq + "logits"])
        hidden = golden[seq + "hidden_states"]
        for k in range(1, len(hidden)):
            note("norm" if k + 1 == len(hidden) else "residual", out.hidden_states[k][0], hidden[k])
        for layer in meta["layers"]:
            quantity = "linear_z" if layer["proj"] == "out_proj" else "z"
            note(quantity, model.z[layer["index"]], golden[seq + f"o_in.{layer['index']}"])
        for name, plan in meta["sets"].items():
            if f"{seq}{name}.logits" in golden:
                plan = [entry if len(entry) == 3 else [*entry, LAMBDAS[name]] for entry in plan]
                out = model.run(ids, plan)
                note("tempered", out.logits[0], golden[f"{seq}{name}.logits"])
                note("tempered_norm", out.hidden_states[-1][0], golden[f"{seq}{name}.h_last"])
    return {**{k: float(f"{v:.2e}") for k, v in worst.items()}, "top": round(tops[0] / tops[1], 3)}


def main():
    for directory in map(pathlib.Path, sys.argv[1:]):
        golden, meta = load_file(directory / "golden.safetensors"), json.loads((directory / "golden.json").read_text())
        types = {"bf16": torch.bfloat16, "f16": torch.float16}
        found = {name: measure(directory, golden, meta, dtype) for name, dtype in types.items()}
        (directory / "halves.json").write_text(json.dumps(found, indent=2) + "\n")
        print(directory, json.dumps(found))


main()
