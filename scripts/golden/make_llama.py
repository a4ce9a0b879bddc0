"""A tiny Llama, the architecture of SmolLM2: grouped-query attention, tied embeddings, plain RoPE with theta 1e5.

    python scripts/golden/make_llama.py --out tests/golden/llama
"""

import common
from transformers import LlamaConfig, LlamaForCausalLM

HEADS = [(0, 1), (2, 4), (3, 0)]


def rules(name, p, generator):
    # Embeddings are small beside what the layers write; otherwise the tied head would only repeat the token it reads.
    if "embed_tokens" in name:
        return 0.25 * common.randn(p, generator)
    if name == "model.norm.weight":
        return 2.0 * (1 + 0.2 * common.randn(p, generator))
    return None


def build(seed):
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=72,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=12,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=4,
        eos_token_id=5,
        pad_token_id=5,
    )
    return common.prepare(LlamaForCausalLM, config, seed, rules)


GOLDEN = common.Golden(
    build,
    seed=71,
    lengths=[5, 17, 40, 70],
    sequence_seed=100,
    final_only={3},
    sets=common.uniform_sets(HEADS) | {"mixed": [(0, 0, 0.25), (1, 5, 1.75), (1, 2, 0.0), (3, 3, -0.5)]},
)

if __name__ == "__main__":
    common.main(__doc__, GOLDEN)
