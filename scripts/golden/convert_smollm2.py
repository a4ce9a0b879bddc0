"""SmolLM2-135M-Instruct from a GGUF file to a Hugging Face directory in bfloat16.

    python scripts/golden/convert_smollm2.py --gguf models/SmolLM2-135M-Instruct.Q4_1.gguf --out models/smollm2-135m

The tokenizer is built from the file's vocabulary and merges: transformers' own conversion does not split digits and
takes BOS for EOS. `--check` compares the weights with transformers' GGUF loader (needs accelerate).
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

GGUF = pathlib.Path("models/SmolLM2-135M-Instruct.Q4_1.gguf")
OUT = pathlib.Path("models/smollm2-135m")

OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL = 3  # tokenizer.ggml.token_type of special tokens


def read(path):
    """The tensors and the metadata of a GGUF file."""
    reader = GGUFReader(path)
    return reader.tensors, {key: field.contents() for key, field in reader.fields.items()}


def unpermute(w, heads):
    """Undoes llama.cpp's order of q and k rows: [heads, dim / 2, 2] becomes [heads, 2, dim / 2]."""
    rows, columns = w.shape
    return w.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def state_dict(tensors, meta):
    """Every tensor in float32, in transformers' names and order of rows."""
    heads = {"attn_q": meta["llama.attention.head_count"], "attn_k": meta["llama.attention.head_count_kv"]}
    state = {}
    for tensor in tensors:
        w = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        match tensor.name.split("."):
            case ["blk", layer, part, "weight"]:
                w = unpermute(w, heads[part]) if part in heads else w
                name = f"model.layers.{layer}.{INNER[part]}.weight"
            case [part, "weight"]:
                name = f"{OUTER[part]}.weight"
            case _:
                raise SystemExit(f"what is tensor {tensor.name}?")
        state[name] = torch.from_numpy(np.ascontiguousarray(w))
    return state


def config(meta):
    """config.json in the older style of the hub: rope_theta and torch_dtype at the top."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "hidden_size": meta["llama.embedding_length"],
        "intermediate_size": meta["llama.feed_forward_length"],
        "num_hidden_layers": meta["llama.block_count"],
        "num_attention_heads": meta["llama.attention.head_count"],
        "num_key_value_heads": meta["llama.attention.head_count_kv"],
        "max_position_embeddings": meta["llama.context_length"],
        # the file holds 9.999999747378752e-06, which is 1e-05 in float32
        "rms_norm_eps": float(str(np.float32(meta["llama.attention.layer_norm_rms_epsilon"]))),
        "rope_theta": int(meta["llama.rope.freq_base"]),
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "vocab_size": meta["llama.vocab_size"],
        "use_cache": True,
        "pretraining_tp": 1,
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta["tokenizer.ggml.padding_token_id"],
        "torch_dtype": "bfloat16",
    }


def tokenizer(meta):
    tokens, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in meta["tokenizer.ggml.merges"]]
    assert meta["tokenizer.ggml.pre"] == "smollm", meta["tokenizer.ggml.pre"]
    built = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    built.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)
    special = [AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, types) if kind == CONTROL]
    built.add_special_tokens(special)
    assert built.get_vocab_size() == len(tokens)
    return built


def convert(gguf, out):
    """Writes the directory; returns the weights in float32, before they are rounded."""
    tensors, meta = read(gguf)
    state = state_dict(tensors, meta)
    tokens, template = meta["tokenizer.ggml.tokens"], meta["tokenizer.chat_template"]
    special = {
        f"{kind}_token": tokens[meta[f"tokenizer.ggml.{key}_token_id"]]
        for kind, key in {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}.items()
    }
    settings = config(meta)
    ids = {key: settings[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    out.mkdir(parents=True, exist_ok=True)

    def dump(name, content):
        (out / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    dump("config.json", settings)
    dump("generation_config.json", ids)
    dump("special_tokens_map.json", special)
    dump(
        "tokenizer_config.json",
        special
        | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": settings["max_position_embeddings"],
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "chat_template": template,
        },
    )
    (out / "chat_template.jinja").write_text(template)
    tokenizer(meta).save(str(out / "tokenizer.json"))
    # The weights come last: a directory that has them is complete.
    halved = {name: w.to(torch.bfloat16) for name, w in state.items()}
    save_file(halved, out / "model.safetensors.part", metadata={"format": "pt"})
    os.replace(out / "model.safetensors.part", out / "model.safetensors")
    for file in out.iterdir():
        file.chmod(0o644)
    return state


def check(gguf, out, state):
    """Compares the weights with what transformers reads from the same file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": gguf.resolve().parent, "gguf_file": gguf.name}
    theirs = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).state_dict()
    theirs.pop("lm_head.weight", None)  # tied
    assert theirs.keys() == state.keys(), theirs.keys() ^ state.keys()
    differ = [name for name in state if not torch.equal(theirs[name], state[name])]
    assert not differ, f"differs from transformers' GGUF loader: {differ}"
    print(f"{len(state)} tensors are transformers', bit for bit")
    worst = max(((w - w.bfloat16().float()).abs().max() / w.abs().max()).item() for w in state.values())
    print(f"bfloat16 rounds by up to {worst:.2%} of a tensor's largest value")
    fast = AutoTokenizer.from_pretrained(out)
    for text in ["Hello world, 12345 test's  it", "x = 10\n\n\tfoo  bar é 你好", "a   1999", "  3.14"]:
        assert fast.decode(fast(text).input_ids) == text, text
    pieces = fast.convert_ids_to_tokens(fast("a   1999").input_ids)
    assert pieces == ["a", "ĠĠĠ", "1", "9", "9", "9"], pieces
    assert (fast.bos_token_id, fast.eos_token_id, fast.pad_token_id, fast.unk_token_id) == (1, 2, 2, 0)
    print("the tokenizer gives every text back, and splits digits")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=pathlib.Path, default=GGUF, metavar="FILE")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, metavar="DIR")
    parser.add_argument("--check", action="store_true", help="compare with transformers' GGUF loader")
    args = parser.parse_args()
    state = convert(args.gguf, args.out)
    print(f"{args.out}: {len(state)} tensors, {sum(w.numel() for w in state.values()) / 1e6:.1f} M values in bfloat16")
    if args.check:
        check(args.gguf, args.out, state)


if __name__ == "__main__":
    main()
