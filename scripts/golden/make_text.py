"""Tokenizers, chats and stop tokens: what each family's text pipeline does, on tokenizers small enough to keep.

    python scripts/golden/make_text.py --out tests/golden/text

For every family: a tokenizer trained here with the family's exact pipeline, as tokenizer.json and as a GGUF file of
metadata alone; the configuration files in the family's shape; a chat template of our own that renders what the family's
renders; and golden.json:

  texts  [{text, ids, special, decoded}]   ids without and with what the tokenizer adds; `decoded` is of `special`
  chats  [{name, messages, thinking, render, ids}]   by transformers; thinking null: not said; render null: refused
  stop   the tokens a generation ends with, {directory, gguf}

`jinja` holds only a template, with the features that the families' templates do not use. Real ids differ; pipelines,
names and shapes do not.
"""

import argparse
import json
import pathlib
import random

from gguf import GGUFWriter, TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.utils.chat_template_utils import render_jinja_template

HERE = pathlib.Path(__file__).parent / "templates"
SEED = 5

# ---------------------------------------------------------------- texts

SENTENCES = [
    "The quick brown fox jumps over the lazy dog; it's what they'd do, and we'll see.",
    "Is this true or false? The answer is: yes, it is. NO, IT ISN'T.",
    "Café déjà vu, naïve façade, Ångström, El Niño, Łódź, crème brûlée.",
    "你好，世界。今天天气很好。模型读取提示并写出答案。",
    "東京は日本の首都です。すし、ラーメン、てんぷら。",
    "नमस्ते दुनिया। हिन्दी में लिखा गया।",
    "שָׁלוֹם עוֹלָם, สวัสดีชาวโลก ภาษาไทย",
    "In 2024 there were 365 or 366 days, 3.14159 and 1,000,000 and ½ and ٣٤٥.",
    "def f(x):\n    if x > 0:\n        return x * 2\n\n\n    return None\n",
    "# Title\n\n* one\n* two\n\n\n| a | b |\n|---|---|\n",
    "a  b   c    d     e      f\t\tg\r\nh\r\n\r\ni \n j",
]
TEXTS = [
    "",
    " ",
    "  ",
    "a",
    "The quick brown fox jumps.",
    "Hello world! 123",
    "  multiple   spaces  and a trail   ",
    "tabs\t\tand\r\nlines\r\n\r\n  \n\n\n\n\n end\n",
    "\n",
    "\n\n\n",
    " \n \n  x",
    "It's we'LL they'D IT'S 'tis 's I\u2019m i'\u017f don't",
    "Café déjà vu, Cafe\u0301 de\u0301ja\u0300 vu",
    "x\u0301y\u0323\u0307z a\u030a \u0301 1\u0301 \u0344",
    "\u1e9b\u0323 \u212b \u2126 \ufb01 \uac00 \u1100\u1161",
    "नमस्ते हिन्दी में क्षि",
    "שָׁלוֹם สวัสดี",
    "你好，世界。今天 is 天气 123",
    "😀 👩‍👩‍👧 🇩🇪 e😀é",
    "1234567890 3.14 1,000 ½ ٣٤٥ x2y3 ²",
    "under_score __init__ a-b/c.d@e #1 $5 ... !!! ?!\n!!",
    "\u00a0nbsp\u3000ideographic\u2028separator\u0085next\u200bzero\u0000null\u001funit",
    "▁already▁there Ġ Ċ",
    "supercalifragilisticexpialidocious" * 3,
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "<|endoftext|><think> x </think><|im_end|>",
    "<bos><|turn>user\nHi<turn|>\n<|turn>model\n<|channel>thought\nhm<channel|>",
    "a<eos>b<unk>c<pad>d<0x41><|im_start |>",
]

# ---------------------------------------------------------------- families

LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?"
REST = r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN3 = LETTERS + r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+" + REST
QWEN3_5 = LETTERS + r"[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+" + REST

CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPLIT = pre_tokenizers.Split


def bytes_of(regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)


class ByteLevel:
    """SmolLM2, Qwen3 and Qwen3.5."""

    model, vocab, specials_first = "gpt2", 700, False
    # Tokens that no text may become: digits stand alone, and a whole word is a token only if merges make it.
    traps = ["12", "Ġ1", "Hello"], [("1", "2"), ("Ġ", "1")]

    def __init__(self, normalizer, pre_tokenizer):
        self.normalizer, self.pre_tokenizer = normalizer, pre_tokenizer

    def train(self, corpus):
        tokenizer = self.around(models.BPE())
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        return train(tokenizer, corpus, self.vocab, initial_alphabet=alphabet)

    def around(self, model):
        tokenizer = Tokenizer(model)
        if self.normalizer:
            tokenizer.normalizer = self.normalizer
        tokenizer.pre_tokenizer = self.pre_tokenizer
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    def build(self, vocab, merges):
        return self.around(models.BPE(vocab=vocab, merges=merges))


class Gemma:
    """The pipeline that tokenization_gemma.py of transformers builds."""

    model, vocab, specials_first = "gemma4", 500, True
    bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    traps = ["Hello▁world!▁123"], []

    def train(self, corpus):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        # The real merges stay within words, and within runs of spaces or newlines.
        tokenizer.pre_tokenizer = SPLIT(Regex(r"▁?[^▁\n]+|▁+|\n+"), behavior="isolated")
        # Characters that are missing from the vocabulary fall back to bytes.
        return train(tokenizer, corpus, self.vocab, limit_alphabet=150)

    def build(self, vocab, merges):
        model = models.BPE(vocab=vocab, merges=merges, fuse_unk=True, unk_token="<unk>", byte_fallback=True)
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = SPLIT(" ", behavior="merged_with_previous")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        bos = vocab["<bos>"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A $B:1", special_tokens=[("<bos>", bos)]
        )
        return tokenizer


def train(tokenizer, corpus, vocab, **how):
    """The pieces, without special tokens, and the merges that make them."""
    trainer = trainers.BpeTrainer(vocab_size=vocab, min_frequency=2, show_progress=False, **how)
    tokenizer.train_from_iterator(corpus, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    return pieces, [tuple(merge) for merge in model["merges"]]


# Special tokens; visible ones, which are matched as a whole too; names of bos, eos, unk and pad; EOS tokens of the files.
FAMILIES = {
    "smollm2": dict(
        pipeline=ByteLevel(None, pre_tokenizers.Sequence([pre_tokenizers.Digits(True), bytes_of(True)])),
        arch="llama",
        pre="smollm",
        special=[*CHATML, "<repo_name>"],
        visible=[],
        names=("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_end|>"),
        eos=["<|im_end|>"],
        generation=["<|im_end|>"],
        stop=["<|im_end|>"],
        gguf=dict(eos="<|im_end|>", also=["<|endoftext|>"]),
    ),
    "qwen3": dict(
        pipeline=ByteLevel(
            normalizers.NFC(), pre_tokenizers.Sequence([SPLIT(Regex(QWEN3), behavior="isolated"), bytes_of(False)])
        ),
        arch="qwen3",
        pre="qwen2",
        special=CHATML,
        visible=["<tool_call>", "</tool_call>", "<think>", "</think>"],
        names=(None, "<|im_end|>", None, "<|endoftext|>"),
        eos=["<|im_end|>"],
        generation=["<|im_end|>", "<|endoftext|>"],
        stop=["<|im_end|>", "<|endoftext|>"],
        gguf=dict(eos="<|im_end|>", also=["<|endoftext|>"]),
    ),
    # config.json names only the end of a text and there is no generation_config.json: the tokenizer knows a turn's end.
    "qwen3_5": dict(
        pipeline=ByteLevel(
            normalizers.NFC(), pre_tokenizers.Sequence([SPLIT(Regex(QWEN3_5), behavior="isolated"), bytes_of(False)])
        ),
        arch="qwen35",
        pre="qwen35",
        special=[*CHATML, "<|vision_pad|>"],
        visible=["<think>", "</think>"],
        names=(None, "<|im_end|>", None, "<|endoftext|>"),
        eos=["<|endoftext|>"],
        generation=None,
        stop=["<|im_end|>", "<|endoftext|>"],
        gguf=dict(eos="<|im_end|>", also=["<|endoftext|>"]),
    ),
    "gemma4": dict(
        pipeline=Gemma(),
        arch="gemma4",
        pre="gemma4",
        special=["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool>", "<tool|>", "<|think|>", "<|turn>", "<turn|>"],
        visible=[
            *("<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>"),
            *('<|"|>', "<|channel>", "<channel|>"),
        ],
        names=("<bos>", "<eos>", "<unk>", "<pad>"),
        eos=["<eos>", "<turn|>"],
        generation=["<eos>", "<turn|>", "<|tool_response>"],
        stop=["<eos>", "<turn|>", "<|tool_response>"],
        gguf=dict(eos="<turn|>", also=["<eos>", "<|tool_response>"]),
    ),
}


# Gemma 4's tokenizer.json calls them special, its GGUF files user-defined. We keep them in a text: the answer follows them.
THOUGHT_ENDS = ("<|channel>", "<channel|>")


def corpus():
    """The sentences in many orders, some cut short."""
    draw = random.Random(SEED)
    texts = []
    for _ in range(60):
        some = draw.sample(SENTENCES, 5)
        texts.append(" ".join(text[: draw.randrange(len(text) // 2, len(text) + 1)] for text in some))
    return texts + SENTENCES * 4


def tokenizer_of(family):
    """The tokenizer, its merges, and the kind of every token for GGUF."""
    pipeline = family["pipeline"]
    pieces, merges = pipeline.train(corpus())
    pieces, merges = pieces + pipeline.traps[0], merges + pipeline.traps[1]
    named = [*family["special"], *family["visible"]]
    fallback = getattr(pipeline, "bytes", [])
    tokens = [*named, *fallback, *pieces] if pipeline.specials_first else [*pieces, *named]
    assert len(set(tokens)) == len(tokens)
    tokenizer = pipeline.build({token: id for id, token in enumerate(tokens)}, merges)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in family["special"]])
    visible = [AddedToken(token, normalized=False, special=token in THOUGHT_ENDS) for token in family["visible"]]
    tokenizer.add_tokens(visible)
    assert tokenizer.get_vocab_size() == len(tokens)
    kinds = dict.fromkeys(fallback, TokenType.BYTE)
    kinds |= dict.fromkeys(family["special"], TokenType.CONTROL)
    kinds |= dict.fromkeys(family["visible"], TokenType.USER_DEFINED)
    # As in real files of Gemma 4: the converter marks the EOS that is not the tokenizer's as a normal token.
    kinds |= {"<unk>": TokenType.UNKNOWN, "<eos>": TokenType.NORMAL}
    return tokenizer, tokens, merges, [kinds.get(token, TokenType.NORMAL) for token in tokens]


# ---------------------------------------------------------------- chats


def say(role):
    return lambda content: {"role": role, "content": content}


USER, ANSWER, SYSTEM = say("user"), say("assistant"), say("system")
THOUGHT = "<think>\nLet me see.\n\n</think>\n\nHello & <b>welcome</b>!"
CHANNEL = "<|channel>thought\nLet me see.<channel|>Hello & <b>welcome</b>! "
CHATS = {
    "user": [USER("Hi")],
    "spaces": [USER("  Hi there \n\n")],
    "system": [SYSTEM("Be brief."), USER("Hi")],
    "system with spaces": [SYSTEM(" Be\n brief.\n"), USER("\u001f Hi\u00a0")],
    "history": [USER("Hi"), ANSWER("Hello!"), USER("Bye, \"é\" '你好' 😀 & <x>")],
    "history with a thought": [USER("Hi"), ANSWER(THOUGHT), USER("Bye")],
    "history with a channel": [SYSTEM("s"), USER("Hi"), ANSWER(CHANNEL), USER("Bye")],
    "an answer last": [USER("Hi"), ANSWER(THOUGHT)],
    "a tool's response": [USER("Hi"), ANSWER(THOUGHT), USER("<tool_response>\n1\n</tool_response>")],
    "two answers": [USER("a"), ANSWER("b"), ANSWER("c"), USER("d")],
    "a late system message": [USER("a"), SYSTEM("s"), USER("b")],
    "an unknown role": [USER("a"), say("critic")("b"), USER("c")],
}

SMOL = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
ASKED = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
BRIEF = "<|im_start|>system\nBe brief.<|im_end|>\n"
TURN = "<|turn>user\nHi<turn|>\n<|turn>model\n"
# What the families' own templates render for (chat, thinking).
STATED = {
    "smollm2": {("user", None): SMOL + ASKED, ("system", None): BRIEF + ASKED},
    "qwen3": {
        ("user", None): ASKED,
        ("user", True): ASKED,
        ("user", False): ASKED + "<think>\n\n</think>\n\n",
        ("system", None): BRIEF + ASKED,
    },
    "qwen3_5": {
        ("user", None): ASKED + "<think>\n\n</think>\n\n",
        ("user", True): ASKED + "<think>\n",
        ("user", False): ASKED + "<think>\n\n</think>\n\n",
    },
    "gemma4": {
        ("user", None): "<bos>" + TURN,
        ("user", False): "<bos>" + TURN,
        ("user", True): "<bos><|turn>system\n<|think|>\n<turn|>\n" + TURN,
        ("system", None): "<bos><|turn>system\nBe brief.<turn|>\n" + TURN,
        ("system", True): "<bos><|turn>system\n<|think|>\nBe brief.<turn|>\n" + TURN,
    },
}
# The chats that a template refuses.
REFUSED = {
    "qwen3_5": {"a late system message", "an unknown role"},
    "jinja": {"an unknown role"},
}


def chats_of(name, template, special):
    """Every chat under every way of asking for thinking, as transformers renders it."""
    chats = []
    for chat, messages in CHATS.items():
        for thinking in (None, True, False) if "enable_thinking" in template else (None,):
            switch = {} if thinking is None else {"enable_thinking": thinking}
            try:
                rendered, _ = render_jinja_template(
                    [messages], chat_template=template, add_generation_prompt=True, **special, **switch
                )
                render = rendered[0]
            except Exception:  # whatever a template or jinja2 raises
                if chat not in REFUSED.get(name, ()):
                    raise
                render = None
            stated = STATED.get(name, {}).get((chat, thinking))
            assert stated in (None, render), f"{name}, {chat}, thinking {thinking}: {render!r} is not {stated!r}"
            chats.append({"name": chat, "messages": messages, "thinking": thinking, "render": render})
    return chats


# ---------------------------------------------------------------- files


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_gguf(path, family, tokens, kinds, merges, template):
    """Writes the keys that llama.cpp's converter writes for a tokenizer."""
    writer = GGUFWriter(path, family["arch"])
    writer.add_tokenizer_model(family["pipeline"].model)
    writer.add_tokenizer_pre(family["pre"])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in merges])
    bos, _, unk, pad = family["names"]
    if bos:
        writer.add_bos_token_id(tokens.index(bos))
    writer.add_eos_token_id(tokens.index(family["gguf"]["eos"]))
    if unk:
        writer.add_unk_token_id(tokens.index(unk))
    writer.add_pad_token_id(tokens.index(pad))
    if bos:  # Qwen's files do not have the key
        writer.add_add_bos_token(bos == "<bos>")
    writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_configs(out, name, family, ids):
    """Writes config.json, generation_config.json and tokenizer_config.json, as far as they concern special tokens."""
    ends = [ids[token] for token in family["eos"]]
    eos = {"eos_token_id": ends[0] if len(ends) == 1 else ends}
    wrapped = {"text_config": {"model_type": f"{name}_text", **eos}}
    write_json(out / "config.json", {"model_type": name} | (wrapped if name == "qwen3_5" else eos))
    if family["generation"]:
        ends = [ids[token] for token in family["generation"]]
        write_json(out / "generation_config.json", {"eos_token_id": ends[0] if len(ends) == 1 else ends})
    names = dict(zip(("bos_token", "eos_token", "unk_token", "pad_token"), family["names"]))
    write_json(out / "tokenizer_config.json", names)
    return {key: token for key, token in names.items() if token}


def write_family(out, name, family):
    out.mkdir(parents=True, exist_ok=True)
    tokenizer, tokens, merges, kinds = tokenizer_of(family)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    ids = {token: id for id, token in enumerate(tokens)}
    special = write_configs(out, name, family, ids)
    template = (HERE / f"{name}.jinja").read_text()
    (out / "chat_template.jinja").write_text(template)
    write_gguf(out / "model.gguf", family, tokens, kinds, merges, template)

    def encode(text, special):
        return tokenizer.encode(text, add_special_tokens=special).ids

    unseen = {ids[token] for token in family["special"]}
    texts = []
    for text in [*TEXTS, *SENTENCES]:
        with_special = encode(text, True)
        decoded = tokenizer.decode([id for id in with_special if id not in unseen], skip_special_tokens=False)
        texts.append({"text": text, "ids": encode(text, False), "special": with_special, "decoded": decoded})
    chats = chats_of(name, template, special)
    for chat in chats:
        # The template has already written what the tokenizer would add.
        chat["ids"] = None if chat["render"] is None else encode(chat["render"], False)
    stop = sorted(ids[token] for token in family["stop"])
    gguf = sorted(ids[token] for token in {family["gguf"]["eos"], *family["gguf"]["also"]})
    traps = {ids[token] for token in family["pipeline"].traps[0]}
    assert not any(traps & {*text["special"]} for text in texts)
    document = {"texts": texts, "chats": chats, "stop": {"directory": stop, "gguf": gguf}}
    path = out / "golden.json"
    path.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
    distinct = len({id for text in texts for id in text["special"]})
    print(f"{out}: {len(tokens)} tokens, of which the texts use {distinct}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="write the families here")
    args = parser.parse_args()
    for name, family in FAMILIES.items():
        write_family(args.out / name, name, family)
    out = args.out / "jinja"
    out.mkdir(exist_ok=True)
    template = (HERE / "jinja.jinja").read_text()
    (out / "chat_template.jinja").write_text(template)
    special = {"bos_token": "<s>"}
    write_json(out / "tokenizer_config.json", special)
    write_json(out / "golden.json", {"chats": chats_of("jinja", template, special)})


if __name__ == "__main__":
    main()
