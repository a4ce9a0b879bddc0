"""Tiny Qwen3.5 text models: Gated DeltaNet (linear attention) and gated full attention.

    python scripts/golden/make_qwen3_5.py --out tests/golden/qwen3_5

Writes three directories:

  DIR          Qwen3_5ForCausalLM as save_pretrained writes it: F32, names model.layers.*, a tied head; two value heads
               to a key head, as in the larger models
  DIR_wrapper  the same numbers in Qwen3_5ForConditionalGeneration as on the hub: BF16 but for A_log and the gated norm,
               names model.language_model.*, with a vision tower and MTP tensors that a text engine has to skip;
               no goldens, since its logits are DIR's bit for bit (checked here)
  DIR_even     as many key heads as value heads (0.8B, 2B), an untied head, another interval of full attention, given
               by full_attention_interval alone; one file with the odd name that small models have on the hub, reached
               through its index; sequences around the lengths of the convolution and of the chunks
"""

import contextlib
import json

import common
import torch
from safetensors.torch import load_file
from transformers import (
    Qwen3_5Config,
    Qwen3_5ForCausalLM,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5TextConfig,
    Qwen3_5VisionConfig,
)
from transformers.models.qwen3_5 import modeling_qwen3_5


def text_config():
    return Qwen3_5TextConfig(
        vocab_size=320,
        hidden_size=40,
        intermediate_size=48,
        num_hidden_layers=8,  # full attention in layers 3 and 7
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=24,  # unequal, so that swapped axes of the state show
        linear_conv_kernel_dim=4,
        max_position_embeddings=512,
        rms_norm_eps=1e-6,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000000.0,
            "partial_rotary_factor": 0.25,
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
        },
        tie_word_embeddings=True,
        attention_bias=False,
        bos_token_id=None,
        eos_token_id=5,
        pad_token_id=0,
    )


def even_config():
    return Qwen3_5TextConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=5,
        full_attention_interval=3,  # full attention in layer 2 alone
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=32,
        linear_num_key_heads=3,
        linear_num_value_heads=3,
        linear_key_head_dim=24,
        linear_value_head_dim=16,
        linear_conv_kernel_dim=4,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [4, 2, 2],
            "mrope_interleaved": True,
        },
        tie_word_embeddings=False,
        attention_bias=False,
        bos_token_id=None,
        eos_token_id=5,
        pad_token_id=0,
    )


def rules(name, p, generator):
    if name.endswith("A_log"):
        return common.uniform(p, generator, 0.5, 4.0).log()
    if name.endswith("dt_bias"):  # a step keeps exp(-A * softplus(a + dt_bias)): between about 0.3 and 0.98
        return common.uniform(p, generator, -3.0, -1.0)
    if name.endswith("conv1d.weight"):
        return 0.5 * common.randn(p, generator)
    if name.endswith("linear_attn.norm.weight"):  # the gated norm multiplies by its weight
        return None
    if p.dim() == 1:  # the others by 1 + weight
        return 0.2 * common.randn(p, generator) + (1.0 if name == "model.norm.weight" else 0.0)
    if "embed_tokens" in name:
        return 0.3 * common.randn(p, generator)
    if name.endswith("out_proj.weight"):
        return 1.5 * common.randn(p, generator) / p.shape[1] ** 0.5
    if name == "lm_head.weight":
        return 2.0 * common.randn(p, generator) / p.shape[1] ** 0.5
    return None


def build(seed):
    return common.prepare(Qwen3_5ForCausalLM, text_config(), seed, rules)


def build_even(seed):
    return common.prepare(Qwen3_5ForCausalLM, even_config(), seed, rules)


@contextlib.contextmanager
def recurrent_prefill():
    """The step-by-step recurrence in place of the chunked one: the same in another order."""
    chunked = modeling_qwen3_5.torch_chunk_gated_delta_rule
    modeling_qwen3_5.torch_chunk_gated_delta_rule = modeling_qwen3_5.torch_recurrent_gated_delta_rule
    try:
        yield
    finally:
        modeling_qwen3_5.torch_chunk_gated_delta_rule = chunked


def write_wrapper(text, out, sequences, seed):
    """The text weights inside the multimodal class, laid out as on the hub."""
    vision = Qwen3_5VisionConfig(
        depth=1,
        hidden_size=16,
        intermediate_size=16,
        num_heads=2,
        patch_size=4,
        spatial_merge_size=2,
        temporal_patch_size=2,
        out_hidden_size=40,
        num_position_embeddings=16,
    )
    config = Qwen3_5Config(
        text_config=text_config().to_dict(),
        vision_config=vision.to_dict(),
        image_token_id=316,
        video_token_id=317,
        vision_start_token_id=318,
        vision_end_token_id=319,
        tie_word_embeddings=True,
    )
    wrapper = common.prepare(Qwen3_5ForConditionalGeneration, config, seed + 1)
    wrapper.model.language_model.load_state_dict(text.model.state_dict(), strict=True)
    wrapper.save_pretrained(out)
    common.write_tokenizer(out, 320)
    generator = torch.Generator().manual_seed(seed + 2)
    shapes = {
        "mtp.fc.weight": (40, 80),
        "mtp.norm.weight": (40,),
        "mtp.pre_fc_norm_embedding.weight": (40,),
        "mtp.pre_fc_norm_hidden.weight": (40,),
        "mtp.layers.0.input_layernorm.weight": (40,),
        "mtp.layers.0.self_attn.q_proj.weight": (8, 40),
    }
    mtp = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    float32 = ("A_log", "linear_attn.norm.weight")
    common.rewrite_weights(out, lambda name: torch.float32 if name.endswith(float32) else torch.bfloat16, mtp)
    saved = json.loads((out / "config.json").read_text())
    common.dump_config(out / "config.saved_by_transformers.json", saved)
    saved["text_config"] |= {
        "full_attention_interval": 4,
        "mamba_ssm_dtype": "float32",
        "attn_output_gate": True,
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
        "dtype": "bfloat16",
    }
    saved["dtype"] = "bfloat16"
    common.dump_config(out / "config.json", saved)
    for file in out.iterdir():
        file.chmod(0o644)
    common.check_reload(out, text, sequences[1], Qwen3_5ForConditionalGeneration, Qwen3_5ForCausalLM)


def with_wrapper(text, out, sequences, seed):
    common.check_reload(out, text, sequences[1])
    write_wrapper(text, out.with_name(out.name + "_wrapper"), sequences, seed)


def as_on_the_hub(model, out, sequences, seed):
    """Replaces the list of layer types by the interval, and gives the one file of weights its odd name."""
    path = out / "config.json"
    config = json.loads(path.read_text())
    del config["layer_types"]
    del config["partial_rotary_factor"]  # saved with its default, but rope_parameters has the one that counts
    common.dump_config(path, config | {"full_attention_interval": 3})
    tensors = load_file(out / "model.safetensors")
    common.shard_weights(out, {"model.safetensors-00001-of-00001.safetensors": tensors})
    common.check_reload(out, model, sequences[1])


LINEAR = [(0, 2), (4, 1), (3, 2)]  # two value heads of DeltaNet layers, and one of attention
GOLDEN = common.Golden(
    build,
    seed=256,
    lengths=[5, 17, 40, 70],  # 70 takes two of transformers' chunks of 64
    sequence_seed=102,
    final_only={3},
    sets=common.uniform_sets([(3, 1), (7, 0), (7, 3)], one=LINEAR)
    | {
        "lin_half": [(layer, head, 0.5) for layer, head in LINEAR],
        "mixed": [(1, 0, 0.25), (3, 0, 1.75), (5, 3, 0.0), (6, 1, -0.5), (7, 2, 0.25)],
    },
    variants=(recurrent_prefill,),
    most_noise=5e-4,  # no seed below 400 passes 1e-4: the delta rule is noisy by nature
    finish=with_wrapper,
)
EVEN_LINEAR = [(0, 1), (3, 2), (4, 0)]
EVEN = common.Golden(
    build_even,
    suffix="_even",
    seed=44,
    lengths=[1, 17, 3, 4, 63, 64, 65, 130],  # the convolution reads 4 tokens, a chunk holds 64
    sequence_seed=106,
    final_only={0, 2, 3, 4, 5, 6, 7},
    sets=common.uniform_sets([(2, 0), (2, 2)], one=EVEN_LINEAR)
    | {
        "lin_half": [(layer, head, 0.5) for layer, head in EVEN_LINEAR],
        "mixed": [(0, 0, 0.25), (1, 2, 0.0), (2, 1, 1.75), (4, 2, -0.5)],
    },
    variants=(recurrent_prefill,),
    most_noise=3.5e-4,
    least_lead=0.004,  # twice the sequences have twice the near-ties
    finish=as_on_the_hub,
)

if __name__ == "__main__":
    common.main(__doc__, GOLDEN, EVEN)
