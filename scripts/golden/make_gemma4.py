"""Tiny Gemma 4 text models with the peculiarities of E2B.

    python scripts/golden/make_gemma4.py --out tests/golden/gemma4

Those are: sliding and full attention with heads of different sizes, two kinds of RoPE, layers that share the keys and
values of earlier ones and have an MLP twice as wide, per-layer inputs, a soft-cap on the logits. Writes:

  DIR          Gemma4ForCausalLM as save_pretrained writes it: F32, `per_layer_config` in config.json
  DIR_wrapper  the same numbers in Gemma4ForConditionalGeneration as on the hub: BF16, `global_head_dim` in config.json,
               vision and audio towers, and unused k_proj, v_proj, k_norm of the layers that share keys and values;
               no goldens, since its logits are DIR's bit for bit (checked here)
  DIR_keqv     attention_k_eq_v (26B-A4B, 31B): full layers have no v_proj and their own number of KV heads;
               nothing shared, no per-layer inputs
  DIR_wide     a window of 16, two KV heads, another pattern of layers; a text model in BF16 with the hub's spelling of
               config.json and the unused tensors; nearly all rows are whole numbers of GGUF's blocks of 32
"""

import json

import common
import torch
from transformers import (
    Gemma4AudioConfig,
    Gemma4Config,
    Gemma4ForCausalLM,
    Gemma4ForConditionalGeneration,
    Gemma4TextConfig,
    Gemma4VisionConfig,
)

S, F = "sliding_attention", "full_attention"

# The hub's spelling; transformers turns global_head_dim into per_layer_config.
TEXT = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 48,
    "num_hidden_layers": 8,
    # 5 and 6 use the keys and values of 3, the last sliding layer with its own; 7 those of 4, the last full one
    "layer_types": [S, S, F, S, F, S, S, F],
    "num_kv_shared_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_global_key_value_heads": None,
    "attention_k_eq_v": False,
    "sliding_window": 8,
    "use_double_wide_mlp": True,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 320,
    "final_logit_softcapping": 30.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "rope_parameters": {
        S: {"rope_type": "default", "rope_theta": 10000.0},
        F: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
    },
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "max_position_embeddings": 512,
    "enable_moe_block": False,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
KEQV_TEXT = TEXT | {
    "num_hidden_layers": 4,
    "layer_types": [S, F, S, F],
    "num_kv_shared_layers": 0,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "use_double_wide_mlp": False,
    "hidden_size_per_layer_input": 0,
}
WIDE_TEXT = TEXT | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 6,
    "layer_types": [S, S, S, F, S, F],  # 4 uses the keys and values of 2, 5 those of 3
    "num_kv_shared_layers": 2,
    "num_key_value_heads": 2,
    "sliding_window": 16,
    "hidden_size_per_layer_input": 16,
    "final_logit_softcapping": 20.0,
}
ON_THE_HUB = {
    "model_type": "gemma4_text",
    "dtype": "bfloat16",
    "use_cache": True,
    "use_bidirectional_attention": None,
}


def text_config(text):
    return Gemma4TextConfig(**json.loads(json.dumps(text)))


def rules(name, p, generator):
    if name.endswith("layer_scalar"):
        return common.uniform(p, generator, 0.6, 1.1)
    if name.endswith(("q_norm.weight", "k_norm.weight")):  # attention scores are not scaled, so the norms do it
        return 0.5 * (1 + 0.2 * common.randn(p, generator))
    if name.endswith("embed_tokens.weight"):  # multiplied by sqrt(hidden_size) in the model
        return 0.6 * common.randn(p, generator) / p.shape[1] ** 0.5
    if name.endswith("embed_tokens_per_layer.weight"):  # multiplied by sqrt(hidden_size_per_layer_input)
        return common.randn(p, generator) / 8**0.5
    if ".post_" in name:  # layers that write less amplify rounding less
        return 0.6 * (1 + 0.2 * common.randn(p, generator))
    if name == "model.norm.weight":  # logits that the soft-cap bends
        return 8.0 * (1 + 0.2 * common.randn(p, generator))
    return None


def builder(text):
    return lambda seed: common.prepare(Gemma4ForCausalLM, text_config(text), seed, rules)


def unused_tensors(text, prefix, seed):
    """Keys and values of the layers that use those of others: the hub stores them, and nothing reads them."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    hidden, layers = text["hidden_size"], text["num_hidden_layers"]
    for layer in range(layers - text["num_kv_shared_layers"], layers):
        head_dim = text["global_head_dim"] if text["layer_types"][layer] == F else text["head_dim"]
        rows = text["num_key_value_heads"] * head_dim
        for name, shape in {"k_proj": (rows, hidden), "v_proj": (rows, hidden), "k_norm": (head_dim,)}.items():
            full_name = f"{prefix}layers.{layer}.self_attn.{name}.weight"
            tensors[full_name] = torch.randn(shape, generator=generator)
    return tensors


def write_wrapper(text, out, sequences, seed):
    """The text weights inside the multimodal class, laid out as on the hub."""
    vision = Gemma4VisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        patch_size=4,
        position_embedding_size=16,
    )
    audio = Gemma4AudioConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        output_proj_dims=16,
        subsampling_conv_channels=[4, 2],
    )
    config = Gemma4Config(
        text_config=text_config(TEXT),
        vision_config=vision,
        audio_config=audio,
        image_token_id=312,
        video_token_id=313,
        audio_token_id=314,
        boi_token_id=315,
        eoi_token_id=316,
        boa_token_id=317,
        eoa_token_index=318,
    )
    config.text_config._attn_implementation = "eager"
    wrapper = common.prepare(Gemma4ForConditionalGeneration, config, seed + 1)
    wrapper.model.language_model.load_state_dict(text.model.state_dict(), strict=True)
    wrapper.save_pretrained(out)
    common.write_tokenizer(out, 320)
    unused = unused_tensors(TEXT, "model.language_model.", seed + 2)
    common.rewrite_weights(out, lambda name: torch.bfloat16, unused)
    saved = json.loads((out / "config.json").read_text())
    common.dump_config(out / "config.saved_by_transformers.json", saved)
    saved["text_config"] = TEXT | ON_THE_HUB
    saved["dtype"] = "bfloat16"
    common.dump_config(out / "config.json", saved)
    for file in out.iterdir():
        file.chmod(0o644)
    common.check_reload(out, text, sequences[1])


def with_wrapper(text, out, sequences, seed):
    common.check_reload(out, text, sequences[1])
    write_wrapper(text, out.with_name(out.name + "_wrapper"), sequences, seed)


def as_on_the_hub(model, out, sequences, seed):
    """A text model in BF16, in the hub's spelling."""
    common.rewrite_weights(out, lambda name: torch.bfloat16, unused_tensors(WIDE_TEXT, "model.", seed + 2))
    common.dump_config(out / "config.json", WIDE_TEXT | ON_THE_HUB | {"architectures": ["Gemma4ForCausalLM"]})
    common.check_reload(out, model, sequences[1])


GOLDEN = common.Golden(
    builder(TEXT),
    seed=3,
    lengths=[5, 17, 40, 70],  # all but the first are longer than the window of 8
    sequence_seed=103,
    ids_below=312,  # higher ids are special to the wrapper
    final_only={3},
    # a sliding layer, the full layer whose keys and values are shared, a full layer that uses them
    sets=common.uniform_sets([(0, 2), (4, 1), (7, 3)])
    | {"mixed": [(1, 0, 0.25), (2, 3, 1.75), (3, 1, 0.0), (5, 2, -0.5), (6, 0, 0.25)]},
    most_noise=2.5e-4,  # no seed below 400 passes 2e-4
    finish=with_wrapper,
)
KEQV = common.Golden(
    builder(KEQV_TEXT),
    suffix="_keqv",
    seed=4,
    lengths=[5, 17, 40],
    sequence_seed=104,
    ids_below=312,
    final_only={2},
    sets=common.uniform_sets([(0, 2), (1, 1), (3, 0)]),
)
WIDE = common.Golden(
    builder(WIDE_TEXT),
    suffix="_wide",
    seed=2,
    lengths=[5, 20, 36, 70],  # the window is 16
    sequence_seed=107,
    final_only={0, 2, 3},
    sets=common.uniform_sets([(0, 1), (3, 2), (5, 0)])
    | {"mixed": [(1, 0, 0.25), (2, 3, 1.75), (3, 1, 0.0), (4, 2, -0.5), (5, 3, 0.25)]},
    most_noise=2e-4,
    finish=as_on_the_hub,
)

if __name__ == "__main__":
    common.main(__doc__, GOLDEN, KEQV, WIDE)
