"""GGUF files of a tiny Llama directory, as llama.cpp's convert_hf_to_gguf.py writes them.

    python scripts/golden/make_gguf.py --model tests/golden/llama --types f32,f16

writes model.f32.gguf and model.f16.gguf into the directory. Matrices get the type, vectors stay F32. Rows of 72 values
hold no whole block of 32, so the block types have a model of their own (make_llama_blocks.py). `--check` reads the
files back with transformers' GGUF loader (needs accelerate).
"""

import argparse
import json
import pathlib

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, MODEL_ARCH, SpecialVocab, TokenType
from gguf import get_tensor_name_map, quantize
from safetensors.numpy import load_file

QUANTIZATION_VERSION = 2  # ggml.h, GGML_QNT_VERSION


def permute(w, heads):
    """llama.cpp's order of q and k rows: [heads, 2, dim / 2] becomes [heads, dim / 2, 2]."""
    rows, columns = w.shape
    return w.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def file_type(kind):
    return LlamaFileType.ALL_F32 if kind == "f32" else LlamaFileType[f"MOSTLY_{kind.upper()}"]


def add_config(writer, config):
    """The keys of LlamaModel.set_gguf_parameters."""
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_rope_dimension_count(config["head_dim"])


def add_tokenizer(writer, source):
    """The keys of TextModel._set_vocab_gpt2; tokens stay in the byte-to-unicode alphabet of tokenizer.json."""
    document = json.loads((source / "tokenizer.json").read_text())
    vocab = document["model"]["vocab"]
    special = {token["content"] for token in document["added_tokens"] if token["special"]}
    tokens = sorted(vocab, key=vocab.get)
    assert [vocab[token] for token in tokens] == list(range(len(tokens)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    # merges, ids of special tokens, chat template
    SpecialVocab(source, load_merges=True, n_vocab=len(tokens)).add_to_gguf(writer, quiet=True)
    writer.add_add_bos_token(False)


def write(source, path, kind):
    """Writes one file of a directory in Hugging Face form; `kind` is a GGUF type such as "q4_0"."""
    config = json.loads((source / "config.json").read_text())
    assert config["model_type"] == "llama" and not config["attention_bias"] and not config["mlp_bias"]
    assert config["rope_parameters"]["rope_type"] == "default"
    writer = GGUFWriter(path, "llama")
    writer.add_type("model")
    writer.add_name("tiny llama")
    add_config(writer, config)
    writer.add_file_type(file_type(kind))
    add_tokenizer(writer, source)
    writer.add_quantization_version(QUANTIZATION_VERSION)
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, w in load_file(source / "model.safetensors").items():
        if name.endswith("q_proj.weight"):
            w = permute(w, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            w = permute(w, config["num_key_value_heads"])
        qtype = GGMLQuantizationType[kind.upper()] if w.ndim == 2 else GGMLQuantizationType.F32
        data = quantize(np.ascontiguousarray(w), qtype)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), data, raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check(source, path, kind):
    """Transformers reads the same weights from the file as from the directory, but for the rounding of f16."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    where = {"pretrained_model_name_or_path": path.resolve().parent, "gguf_file": path.name}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).state_dict()
    # Values that bfloat16 holds are exact in half precision too, except those below its normal range.
    most = {"f32": 0.0, "bf16": 0.0, "f16": 2.0**-25}[kind]
    for name, w in load_file(source / "model.safetensors").items():
        worst = np.abs(theirs[name].numpy() - w).max()
        assert worst <= most, f"{path}: {name} is off by {worst}"
    print(f"{path}: transformers reads the same weights")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="default: the model's directory")
    parser.add_argument("--types", default="f32,f16", help="comma-separated: f32, f16 (default) or bf16")
    parser.add_argument("--check", action="store_true", help="read the files back with transformers' GGUF loader")
    args = parser.parse_args()
    out = args.out or args.model
    out.mkdir(parents=True, exist_ok=True)
    for kind in args.types.split(","):
        path = out / f"model.{kind}.gguf"
        write(args.model, path, kind)
        print(f"{path}: {path.stat().st_size} bytes")
        if args.check:
            check(args.model, path, kind)


if __name__ == "__main__":
    main()
