"""A tiny Llama in GGUF's block types, and what transformers computes with the dequantised weights of each.

    python scripts/golden/make_llama_blocks.py --out tests/golden/llama-blocks

Unlike tests/golden/llama it has an untied head (output.weight) and heads * head_dim != hidden_size. Writes one
model.{type}.gguf per type that gguf-py can quantise, and golden.safetensors: `input_ids` I64 [17] and, per type,
`logits.{type}` F32 [320] at the last position, in float32 with eager attention. golden.json holds the types, the seed,
versions, and per type `effect`: how far quantising moves the logits.
"""

import argparse
import json
import pathlib
import tempfile
from importlib.metadata import version

import common
import convert_smollm2
import make_gguf
import torch
from transformers import LlamaConfig, LlamaForCausalLM

SEED = 5
TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "bf16"]


def rules(name, p, generator):
    return 3 * common.randn(p, generator) / p.shape[1] ** 0.5 if name == "lm_head.weight" else None


def build():
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=4,
        eos_token_id=5,
        pad_token_id=5,
    )
    return common.prepare(LlamaForCausalLM, config, SEED, rules)


@torch.no_grad()
def last_logits(model, ids):
    return model(input_ids=ids[None], use_cache=False).logits[0, -1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model = build()
    (ids,) = common.random_sequences(320, [17], seed=103)
    exact = last_logits(model, ids)
    tensors, effect = {"input_ids": ids}, {}
    with tempfile.TemporaryDirectory() as source:
        source = pathlib.Path(source)
        model.save_pretrained(source)
        common.write_tokenizer(source, 320)
        for kind in TYPES:
            path = args.out / f"model.{kind}.gguf"
            make_gguf.write(source, path, kind)
            model.load_state_dict(convert_smollm2.state_dict(*convert_smollm2.read(path)), strict=True)
            logits = last_logits(model, ids)
            tensors[f"logits.{kind}"], effect[kind] = logits, common.maxdiff(logits, exact)
    noise = common.noise(model, [ids], {})
    common.save_tensors(args.out / "golden.safetensors", tensors)
    document = {
        "types": TYPES,
        "seed": SEED,
        "effect": effect,
        "checks": {"float32_noise_logits": noise, "logit_std": round(exact.std().item(), 3)},
        "versions": common.versions() | {"gguf": version("gguf")},
    }
    (args.out / "golden.json").write_text(json.dumps(document, indent=1) + "\n")
    for file in args.out.iterdir():
        file.chmod(0o644)
        print(f"{file}: {file.stat().st_size} bytes")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
