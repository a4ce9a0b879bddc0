"""GGUF files of a tiny model's directory, as llama.cpp's convert_hf_to_gguf.py writes them, with their goldens.

    python scripts/golden/make_gguf.py --model tests/golden/llama --types f32,f16

writes model.f32.gguf and model.f16.gguf into the directory (or into --out: wrappers have goldens elsewhere). Models are
Llama, Qwen3, Qwen3.5 and Gemma 4. Vision and audio towers and MTP tensors are left out (block_count does not count the
latter); Gemma's unused keys and values are kept. Matrices get the type, vectors and convolutions stay F32. In the
block types, rows that are not whole numbers of blocks become F16, and per_layer_model_proj stays BF16.

Files of f32, f16 and bf16 hold the numbers of the directory, so its goldens are theirs. Those of block types have other
numbers, and so another pair of golden files. gguf.safetensors has `input_ids` I64 [T] (sequence 1 of the goldens) and,
per type, `logits.{type}` F32 [V] at its last position, computed by transformers from the dequantised weights. gguf.json
has the types, the versions, and per type `effect`, how far quantising moves these logits, and `float32_noise_logits`.

`--check` reads the files back, with this script and, where it knows the architecture, with transformers' GGUF loader.
"""

import argparse
import json
import pathlib
from importlib.metadata import version

import common
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType, MODEL_ARCH, QuantError, SpecialVocab
from gguf import TokenType, dequantize, get_tensor_name_map, quantize
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

QUANTIZATION_VERSION = 2  # ggml.h, GGML_QNT_VERSION
ARCHITECTURES = {"llama": "llama", "qwen3": "qwen3", "qwen3_5_text": "qwen35", "gemma4_text": "gemma4"}
OTHER_PARTS = ("visual", "vision_tower", "audio_tower", "embed_vision", "embed_audio")
NOT_TEXT = ("mtp.", *(f"model.{part}." for part in OTHER_PARTS))
UNROTATED = 1e30  # divides the frequencies of pairs that RoPE leaves alone


# ---------------------------------------------------------------- the directory


def read_config(source):
    config = json.loads((source / "config.json").read_text())
    config = config.get("text_config", config)
    if "rope_parameters" not in config:  # the older spelling
        assert not config.get("rope_scaling")
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    return config


def read_weights(source):
    """The text model's tensors in float32, under the names they have without a wrapper."""
    tensors = {}
    for file in sorted(source.glob("model*.safetensors")):
        tensors |= load_file(file)
    return {
        name.replace("model.language_model.", "model."): w.float().numpy()
        for name, w in tensors.items()
        if not name.startswith(NOT_TEXT)
    }


# ---------------------------------------------------------------- weights as llama.cpp wants them


def permute(w, heads):
    """llama.cpp's order of q and k rows: [heads, 2, dim / 2] becomes [heads, dim / 2, 2]."""
    rows, columns = w.shape
    return w.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def llama(name, w, config):
    if name.endswith("q_proj.weight"):
        w = permute(w, config["num_attention_heads"])
    elif name.endswith("k_proj.weight"):
        w = permute(w, config["num_key_value_heads"])
    return name, w


def tile(w, keys, values):
    """Turns value heads (the first axis) from grouped by key head to tiled: the first of every key head, the second, ..."""
    return w.reshape(keys, values // keys, -1).swapaxes(0, 1).reshape(w.shape)


def qwen35(name, w, config):
    if name.endswith("A_log"):
        w = -np.exp(w)
    elif name.endswith("conv1d.weight"):
        w = w.squeeze(1)
    elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        w = w + 1
    keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
    if ".linear_attn." in name and keys != values:
        if name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
            before = 2 * keys * config["linear_key_head_dim"]
            w = np.concatenate([w[:before], tile(w[before:], keys, values)])
        elif name.endswith("out_proj.weight"):
            w = tile(w.T, keys, values).T
        elif not name.endswith("norm.weight"):
            w = tile(w, keys, values)
    return name.replace("dt_bias", "dt_proj.bias"), w


def gemma4(name, w, config):
    return name.replace("layer_scalar", "layer_scalar.weight"), w


def unchanged(name, w, config):
    return name, w


TRANSFORMS = {"llama": llama, "qwen3": unchanged, "qwen35": qwen35, "gemma4": gemma4}


def rope_freqs(config):
    """Gemma 4's divisors for the RoPE frequencies of full layers."""
    head_dim = config["global_head_dim"]
    rotated = int(head_dim * config["rope_parameters"]["full_attention"]["partial_rotary_factor"] / 2)
    return np.array([1.0] * rotated + [UNROTATED] * (head_dim // 2 - rotated), dtype=np.float32)


def gguf_tensors(source, arch, config):
    """(name in the directory or None, name in the file, values) of every tensor."""
    names = get_tensor_name_map(MODEL_ARCH[arch.upper()], config["num_hidden_layers"])
    if arch == "gemma4":
        yield None, "rope_freqs.weight", rope_freqs(config)
    for name, w in read_weights(source).items():
        renamed, w = TRANSFORMS[arch](name, w, config)
        yield name, names.get_name(renamed, try_suffixes=(".weight", ".bias")), np.ascontiguousarray(w)


# ---------------------------------------------------------------- metadata


def file_type(kind):
    return LlamaFileType.ALL_F32 if kind == "f32" else LlamaFileType[f"MOSTLY_{kind.upper()}"]


def full_attention_interval(config):
    types = config.get("layer_types")
    return types.index("full_attention") + 1 if types else config["full_attention_interval"]


def add_config(writer, arch, config):
    """The keys of TextModel.set_gguf_parameters and of its subclasses."""
    rope = config["rope_parameters"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    if arch != "gemma4":
        writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    head_dim = config["global_head_dim"] if arch == "gemma4" else config["head_dim"]
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    if arch == "llama":
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(head_dim)
    elif arch == "qwen35":
        writer.add_rope_dimension_sections([*rope["mrope_section"], 0])
        writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
        writer.add_ssm_state_size(config["linear_key_head_dim"])
        writer.add_ssm_group_count(config["linear_num_key_heads"])
        writer.add_ssm_time_step_rank(config["linear_num_value_heads"])
        writer.add_ssm_inner_size(config["linear_value_head_dim"] * config["linear_num_value_heads"])
        writer.add_full_attention_interval(full_attention_interval(config))
        writer.add_rope_dimension_count(int(head_dim * rope["partial_rotary_factor"]))
    elif arch == "gemma4":
        add_gemma4_config(writer, config)


def add_gemma4_config(writer, config):
    assert config["num_global_key_value_heads"] is None and not config["attention_k_eq_v"]
    layers, shared = config["num_hidden_layers"], config["num_kv_shared_layers"]
    width, factor = config["intermediate_size"], 2 if config["use_double_wide_mlp"] else 1
    writer.add_feed_forward_length([width] * (layers - shared) + [factor * width] * shared)
    writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_rope_freq_base_swa(config["rope_parameters"]["sliding_attention"]["rope_theta"])
    writer.add_shared_kv_layers(shared)
    writer.add_embedding_length_per_layer_input(config["hidden_size_per_layer_input"])
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
    writer.add_key_length_swa(config["head_dim"])
    writer.add_value_length_swa(config["head_dim"])
    writer.add_rope_dimension_count(config["global_head_dim"])
    writer.add_rope_dimension_count_swa(config["head_dim"])


def add_tokenizer(writer, source, size):
    """The keys of TextModel._set_vocab_gpt2; tokens stay in the byte-to-unicode alphabet of tokenizer.json. Embedding
    rows without a token are named as the converter names them."""
    document = json.loads((source / "tokenizer.json").read_text())
    vocab = document["model"]["vocab"]
    special = {token["content"] for token in document["added_tokens"] if token["special"]}
    tokens = sorted(vocab, key=vocab.get)
    assert [vocab[token] for token in tokens] == list(range(len(tokens)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    types = [TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens]
    unused = [f"[PAD{i}]" for i in range(len(tokens), size)]
    writer.add_token_list(tokens + unused)
    writer.add_token_types(types + [TokenType.UNUSED] * len(unused))
    # merges, ids of special tokens, chat template
    SpecialVocab(source, load_merges=True, n_vocab=len(tokens)).add_to_gguf(writer, quiet=True)
    writer.add_add_bos_token(False)


# ---------------------------------------------------------------- files


def is_block_type(kind):
    return kind.startswith("q")


def encode(name, w, kind):
    if w.ndim == 1 or "conv1d" in name:
        kind = "f32"
    elif name == "per_layer_model_proj.weight" and is_block_type(kind):
        kind = "bf16"
    try:
        return quantize(w, GGMLQuantizationType[kind.upper()]), GGMLQuantizationType[kind.upper()]
    except QuantError:  # a row is not a whole number of blocks
        return quantize(w, GGMLQuantizationType.F16), GGMLQuantizationType.F16


def write(source, path, kind):
    """Writes one file of a directory in Hugging Face form; `kind` is a GGUF type such as "q4_0"."""
    config = read_config(source)
    arch = ARCHITECTURES[config["model_type"]]
    assert not config["attention_bias"] and not config.get("mlp_bias")
    rope = config["rope_parameters"]
    assert arch == "gemma4" or rope["rope_type"] == "default"
    writer = GGUFWriter(path, arch)
    writer.add_type("model")
    writer.add_name(f"tiny {arch}")
    add_config(writer, arch, config)
    writer.add_file_type(file_type(kind))
    add_tokenizer(writer, source, config["vocab_size"])
    writer.add_quantization_version(QUANTIZATION_VERSION)
    for _, name, w in gguf_tensors(source, arch, config):
        data, qtype = encode(name, w, kind)
        writer.add_tensor(name, data, raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---------------------------------------------------------------- the way back, by other means


def untile(w, meta, axis=0, first=0):
    """Value heads in transformers' order, from `first` on: place p in the file is value p // keys of key p % keys."""
    keys, values = meta["qwen35.ssm.group_count"], meta["qwen35.ssm.time_step_rank"]
    size = (w.shape[axis] - first) // values
    source = np.arange(w.shape[axis])
    for place in range(values):
        head = place % keys * (values // keys) + place // keys
        source[first + head * size : first + (head + 1) * size] = np.arange(size) + first + place * size
    return w.take(source, axis)


def restore(name, w, meta):
    """A tensor of a file, by its name there, as the directory has it."""
    part = name.removesuffix(".weight").split(".", 2)[-1]
    arch = meta["general.architecture"]
    if arch == "llama" and part in ("attn_q", "attn_k"):
        heads = meta["llama.attention.head_count" + ("_kv" if part == "attn_k" else "")]
        pairs = w.reshape(heads, -1, 2, w.shape[1])
        return np.concatenate([pairs[:, :, 0], pairs[:, :, 1]], axis=1).reshape(w.shape)
    if arch != "qwen35":
        return w
    before = 2 * meta["qwen35.ssm.group_count"] * meta["qwen35.ssm.state_size"]
    match part:
        case "ssm_a":
            return np.log(-untile(w, meta))
        case "ssm_dt.bias" | "ssm_alpha" | "ssm_beta" | "attn_gate":
            return untile(w, meta)
        case "attn_qkv":
            return untile(w, meta, first=before)
        case "ssm_conv1d":
            return untile(w, meta, first=before)[:, None]
        case "ssm_out":
            return untile(w, meta, axis=1)
        case _ if part.endswith("norm") and part != "ssm_norm":
            return w - 1
    return w


def read(source, path):
    """The weights of a file, dequantised, under the names of the directory."""
    reader, config = GGUFReader(path), read_config(source)
    meta = {key: field.contents() for key, field in reader.fields.items()}
    names = {there: here for here, there, _ in gguf_tensors(source, meta["general.architecture"], config) if here}
    return {
        names[tensor.name]: restore(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(np.float32), meta)
        for tensor in reader.tensors
        if tensor.name in names
    }


def transformers_model(source, weights=None):
    """The model that transformers loads from the directory, with other weights if given."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager")
    if weights is not None:
        if hasattr(model.model, "language_model"):
            weights = {name.replace("model.", "model.language_model.", 1): w for name, w in weights.items()}
        state = {name: torch.from_numpy(np.ascontiguousarray(w)) for name, w in weights.items()}
        own = {name for name, _ in [*model.named_parameters(), *model.named_buffers()] if name in model.state_dict()}
        text = {name for name in own if not name.startswith(NOT_TEXT)}
        assert text <= state.keys(), text - state.keys()
        model.load_state_dict({name: state[name] for name in text}, strict=False)
    return model


@torch.no_grad()
def last_logits(model, ids):
    return model(input_ids=ids[None], use_cache=False).logits[0, -1]


def write_goldens(source, out, kinds):
    """Goldens of the block types."""
    ids = load_file(out / "golden.safetensors")["seq1.input_ids"]
    exact = last_logits(transformers_model(source), ids)
    tensors = {"input_ids": ids}
    document = {"types": kinds, "effect": {}, "float32_noise_logits": {}, "versions": None}
    for kind in kinds:
        model = transformers_model(source, read(source, out / f"model.{kind}.gguf"))
        logits = last_logits(model, ids)
        tensors[f"logits.{kind}"] = logits
        document["effect"][kind] = common.maxdiff(logits, exact)
        document["float32_noise_logits"][kind] = common.noise(model, [ids], {})
    document["versions"] = common.versions() | {"gguf": version("gguf")}
    common.save_tensors(out / "gguf.safetensors", tensors)
    (out / "gguf.json").write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))


def check(source, out, kind):
    """Checks that weights and logits are the directory's but for rounding, and that transformers agrees where it can."""
    path, weights = out / f"model.{kind}.gguf", read_weights(source)
    again = read(source, path)
    assert again.keys() == weights.keys(), again.keys() ^ weights.keys()
    # Values that bfloat16 holds are exact in half precision too, except those below its normal range; 1 + w and
    # exp(log) are rounded in float32. Q4_0 is the coarsest block type: -8 to 7, so an eighth is cut off.
    most = {"f32": 2.0**-22, "bf16": 2.0**-22, "f16": 2.0**-22}.get(kind, 0.13)
    worst = max(np.abs(again[name] - w).max() / max(1.0, np.abs(w).max()) for name, w in weights.items())
    assert worst <= most, f"{path}: weights are off by {worst}"
    print(f"{path}: the weights are back, off by {worst:.1e}")
    if not is_block_type(kind):
        golden = load_file(out / "golden.safetensors")
        ids, expected = golden["seq1.input_ids"], golden["seq1.logits"]
        logits = last_logits(transformers_model(source, again), ids)
        off = common.maxdiff(logits, expected if expected.ndim == 1 else expected[-1])
        noise = json.loads((out / "golden.json").read_text())["checks"]["float32_noise_logits"]
        assert off <= 2 * noise, f"{path}: logits are off by {off}"
        print(f"{path}: transformers computes the goldens from it, off by {off:.1e} (noise {noise:.1e})")
    if read_config(source)["model_type"] in ("llama", "qwen3"):
        where = {"pretrained_model_name_or_path": path.resolve().parent, "gguf_file": path.name}
        theirs = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).state_dict()
        for name, w in again.items():
            assert np.array_equal(theirs[name].numpy(), w), f"{path}: {name} differs"
        print(f"{path}: transformers' GGUF loader reads the same weights")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="default: the model's directory")
    parser.add_argument("--types", default="f32,f16", help="comma-separated: f32, f16, bf16, q8_0, q4_0, ...")
    parser.add_argument("--check", action="store_true", help="read the files back")
    parser.add_argument("--no-goldens", action="store_true", help="the files alone, of a model of any size")
    args = parser.parse_args()
    out = args.out or args.model
    out.mkdir(parents=True, exist_ok=True)
    kinds = args.types.split(",")
    for kind in kinds:
        path = out / f"model.{kind}.gguf"
        write(args.model, path, kind)
        path.chmod(0o644)
        print(f"{path}: {path.stat().st_size} bytes")
        if args.check:
            check(args.model, out, kind)
    blocks = [kind for kind in kinds if is_block_type(kind)]
    if blocks and not args.no_goldens:
        write_goldens(args.model, out, blocks)


if __name__ == "__main__":
    main()
