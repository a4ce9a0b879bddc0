"""Tiny Qwen3: an RMS norm of every query and key head, and heads whose dimensions do not add up to the hidden size.

    python scripts/golden/make_qwen3.py --out tests/golden/qwen3

Writes DIR with an untied head (like Qwen3-8B), and DIR_tied in the form of Qwen3-0.6B on the hub: BF16, the older
spelling of config.json, three files and an index, a head tied to the embeddings, and yet a copy as lm_head.weight.
"""

import json

import common
import torch
from safetensors.torch import load_file
from transformers import Qwen3Config, Qwen3ForCausalLM


def build(seed):
    config = Qwen3Config(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        tie_word_embeddings=False,
        attention_bias=False,
        use_sliding_window=False,
        bos_token_id=4,
        eos_token_id=5,
        pad_token_id=0,
    )

    def rules(name, p, generator):
        return 3.0 * common.randn(p, generator) / p.shape[1] ** 0.5 if name == "lm_head.weight" else None

    return common.prepare(Qwen3ForCausalLM, config, seed, rules)


def build_tied(seed):
    config = Qwen3Config(
        vocab_size=320,
        hidden_size=40,
        intermediate_size=72,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=16,
        max_position_embeddings=200,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 5000000.0},
        tie_word_embeddings=True,
        attention_bias=False,
        use_sliding_window=False,
        bos_token_id=4,
        eos_token_id=5,
        pad_token_id=0,
    )

    def rules(name, p, generator):
        # Embeddings are small; otherwise the tied head would only repeat the token it reads.
        if "embed_tokens" in name:
            return 0.25 * common.randn(p, generator)
        return 2.0 * (1 + 0.2 * common.randn(p, generator)) if name == "model.norm.weight" else None

    return common.prepare(Qwen3ForCausalLM, config, seed, rules)


def as_on_the_hub(model, out, sequences, seed):
    """Rewrites config.json in the older spelling, and the weights as three BF16 files with a needless lm_head."""
    path = out / "config.json"
    config = json.loads(path.read_text())
    for key in ("dtype", "rope_parameters", "layer_types"):
        del config[key]
    config |= {
        "rope_theta": 5000000,
        "rope_scaling": None,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
    }
    common.dump_config(path, config)
    tensors = {name: x.to(torch.bfloat16) for name, x in load_file(out / "model.safetensors").items()}
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    names = sorted(tensors)
    third = -(-len(names) // 3)
    files = {
        f"model-{i + 1:05}-of-00003.safetensors": {name: tensors[name] for name in names[i * third : (i + 1) * third]}
        for i in range(3)
    }
    common.shard_weights(out, files)
    common.check_reload(out, model, sequences[1])


GOLDEN = common.Golden(
    build,
    seed=30,
    lengths=[5, 17, 40, 70],
    sequence_seed=101,
    final_only={3},
    sets=common.uniform_sets([(0, 3), (1, 1), (3, 2)])
    | {"mixed": [(0, 0, 0.25), (1, 3, 1.75), (2, 2, 0.0), (3, 0, -0.5)]},
)
TIED = common.Golden(
    build_tied,
    suffix="_tied",
    seed=32,
    lengths=[5, 17, 40, 70],
    sequence_seed=105,
    final_only={2, 3},
    sets=common.uniform_sets([(0, 5), (1, 2), (2, 0)])
    | {"mixed": [(0, 1, 0.25), (1, 4, 1.75), (1, 0, 0.0), (2, 3, -0.5)]},
    finish=as_on_the_hub,
)

if __name__ == "__main__":
    common.main(__doc__, GOLDEN, TIED)
