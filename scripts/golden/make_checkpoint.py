"""What transformers computes for a checkpoint of real size, and what its tokenizer, template and stop tokens say.

    python scripts/golden/make_checkpoint.py --model Qwen/Qwen3-0.6B --out runs/qwen3-0.6b
    temper verify Qwen/Qwen3-0.6B --golden runs/qwen3-0.6b/golden.safetensors

`scripts/verify_checkpoint.sh` does both. The model is a hub id or a directory. It is computed in float32 with eager
attention, at four bytes of memory per parameter; of a multimodal model, only the text decoder. There are four
sequences: three chats by the model's own template, and a text that is longer than its attention window. The files keep
the layout of common.py, with `final_only` for all and some tensors less (no attr.*). In addition, golden.safetensors has:

  logit_ids                I64 [K]  seq{i}.{set}.logits are of these tokens: vocabularies are large
  seq{i}.greedy_lead       F32 [8]  lead of each greedy token over the next: after a near tie nothing is certain
  seq{i}.{set}.greedy_lead F32 [8]

and in golden.json:

  checkpoint      {model, revision, dtype, class}   says that the model is a real one: a tolerance may grow with its noise
  sampled_logits  true: `logit_ids` holds
  checks          float32_noise_{logits,residual,z,norm}: as measured on what is stored, tempered or not; noise_of: how
  text            texts    [{text, ids, special, decoded}]   ids without and with what the tokenizer adds
                  decodes  [{ids, text}]   of tokens drawn at random
                  chats    [{name, messages, thinking, render, ids}]   thinking null: not said; render null: refused
                  stop     [id]   the union of what the files say
"""

import argparse
import contextlib
import json
import os
import pathlib
import random

os.environ.setdefault("HF_HUB_OFFLINE", "0")  # the model may be on the hub; common.py would set offline mode

import torch

THREADS = torch.get_num_threads()  # before common.py sets two for its recipe, which a real model does not follow

import common
from make_text import ANSWER, CHATS, SYSTEM, TEXTS, USER
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedConfig
from transformers.utils import cached_file
from transformers.utils.logging import enable_progress_bar

GREEDY = 8
SEED = 5
LONG = 600  # tokens of the long text; more if the window is larger
SAMPLED = 4096  # logits kept of a tempered run
PROMPTS = [
    [USER("What is the capital of France?")],
    [SYSTEM("Answer with one word."), USER('Is this statement true or false? "The Sun orbits the Earth."')],
    [USER("Name a colour."), ANSWER("Blue."), USER("Write one short sentence about the sea, then count:   1 2 3")],
]
FACTORS = [0.25, 1.75, 0.0, -0.5]  # of the set `mixed`


# ---------------------------------------------------------------- the model


def load(args):
    """The text decoder alone: a multimodal class replaces some tokens by images, which here are tokens like any other."""
    model, info = AutoModelForCausalLM.from_pretrained(
        args.model,
        revision=args.revision,
        dtype=getattr(torch, args.dtype),
        attn_implementation="eager",
        output_loading_info=True,
    )
    assert not info["missing_keys"], f"the files lack {sorted(info['missing_keys'])}"
    if hasattr(model.model, "language_model"):
        with torch.device("meta"):
            text = AutoModelForCausalLM.from_config(model.config.get_text_config(), attn_implementation="eager")
        text.model, text.lm_head = model.model.language_model, model.lm_head
        text.config._commit_hash = model.config._commit_hash
        model = text
        assert not any(x.is_meta for x in [*model.parameters(), *model.buffers()]), "a tensor is no part of the decoder"
    return model.eval()


def last_of(model, ids, decoded=False):
    """One pass's results at the last position; with `decoded`, the last token is read alone, after the cached rest."""
    z, before = {}, {}
    keep = [
        (module, lambda x, layer=layer: z.__setitem__(layer, x[0, -1].float()))
        for layer, (module, _, _) in enumerate(common.out_projections(model))
    ]
    keep.append((common.text_model(model).norm, lambda x: before.__setitem__("norm", x[0, -1].float())))
    cache = None
    with torch.no_grad(), common.hooked(keep):
        if decoded:
            cache = model(input_ids=ids[None, :-1], use_cache=True, logits_to_keep=1).past_key_values
            ids = ids[-1:]
        out = model(
            input_ids=ids[None],
            past_key_values=cache,
            use_cache=decoded,
            output_hidden_states=True,
            logits_to_keep=1,
        )
    hidden = torch.stack([h[0, -1].float() for h in out.hidden_states])
    return {"logits": out.logits[0, -1].float(), "hidden": hidden, "z": z, "last": before["norm"]}


@torch.no_grad()
def greedy(model, ids, n=GREEDY):
    """The greedy continuation with the cache, ignoring stop tokens, and the lead of each token over the next."""
    cache, tokens, leads = None, [], []
    while len(tokens) < n:
        out = model(input_ids=ids[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, top = out.past_key_values, out.logits[0, -1].topk(2)
        tokens.append(top.indices[0])
        leads.append((top.values[0] - top.values[1]).float())
        ids = top.indices[:1]
    return torch.stack(tokens), torch.stack(leads)


def spread_sets(layers):
    """half, zero and mixed, on heads in the first and last layer of every kind and in two between."""
    kinds = {}
    for layer in layers:
        kinds.setdefault(layer["type"], []).append(layer)
    uniform, mixed = [], []
    for of_kind in kinds.values():
        places = sorted({round(part * (len(of_kind) - 1) / 3) for part in range(4)})
        for i, place in enumerate(places):
            here, next_one = of_kind[place], of_kind[(place + 1) % len(of_kind)]
            heads = [0, here["heads"] - 1, here["heads"] // 2, 1]
            uniform.append((here["index"], heads[i] % here["heads"]))
            heads = [next_one["heads"] - 1, 1, 0, next_one["heads"] // 2]
            mixed.append((next_one["index"], heads[i] % next_one["heads"], FACTORS[i]))
    sets = common.uniform_sets(uniform) | {"mixed": mixed}
    return {name: heads for name, heads in sets.items() if common.changes_something(heads)}


# ---------------------------------------------------------------- sequences


def long_text():
    """English of little sense, without repeating a sentence."""
    draw = random.Random(SEED)
    who = ["the keeper", "a sailor", "her brother", "the old captain", "no one", "the doctor", "every guest"]
    did = ["wrote down", "forgot", "asked about", "counted", "mended", "sold", "dreamed of", "argued over"]
    what = ["the lamps", "seven letters", "a broken compass", "the price of salt", "the northern road", "two clocks"]
    why = ["because the wind had turned", "although it rained", "before the ferry left", "as they always had", "again"]
    said = [
        f"On day {day} {draw.choice(who)} {draw.choice(did)} {draw.choice(what)} {draw.choice(why)}."
        for day in range(1, 400)
    ]
    return "\n\n".join(" ".join(said[at : at + 7]) for at in range(0, len(said), 7))


def encode(tokenizer, text, special):
    return tokenizer(text, add_special_tokens=special).input_ids


def render(tokenizer, messages, thinking=None):
    """The prompt of a chat, or None if the template refuses it."""
    switch = {} if thinking is None else {"enable_thinking": thinking}
    try:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **switch)
    except Exception:  # whatever a template or jinja2 raises
        return None


def sequences_of(model, tokenizer):
    config = common.text_model(model).config
    room = config.max_position_embeddings - GREEDY
    prompts = []
    for messages in PROMPTS:
        rendered = render(tokenizer, messages) if tokenizer.chat_template else None
        if rendered is None:  # no template, or one that takes no system message
            prompts.append(encode(tokenizer, messages[-1]["content"], True))
        else:
            prompts.append(encode(tokenizer, rendered, False))
    length = max(LONG, (getattr(config, "sliding_window", None) or 0) + 88)
    prompts.append(encode(tokenizer, long_text(), True)[: min(length, room)])
    return [torch.tensor(ids) for ids in prompts]


# ---------------------------------------------------------------- noise


def off(a, b):
    """Largest differences of two passes, by quantity."""
    return {
        "logits": common.maxdiff(a["logits"], b["logits"]),
        "residual": max(common.maxdiff(a["hidden"][:-1], b["hidden"][:-1]), common.maxdiff(a["last"], b["last"])),
        "z": max(common.maxdiff(a["z"][layer], b["z"][layer]) for layer in a["z"]),
        "norm": common.maxdiff(a["hidden"][-1], b["hidden"][-1]),
    }


def has_room(model):
    """Whether this machine has memory for the weights at twice their size."""
    meminfo = pathlib.Path("/proc/meminfo")
    if not meminfo.exists():
        return False
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    available = 1024 * int(lines["MemAvailable"].split()[0])
    return available > 1.5 * sum(p.numel() * p.element_size() for p in model.parameters())


@contextlib.contextmanager
def sdpa(model):
    model.set_attn_implementation("sdpa")
    yield
    model.set_attn_implementation("eager")


@contextlib.contextmanager
def precise(model):
    """The other precision; transformers keeps some steps in float32 even then."""
    was = model.dtype
    model.to(torch.float64 if was == torch.float32 else torch.float32)
    yield
    model.to(was)


def noise(model, sequences, sets, base):
    """Largest difference of each quantity between `base` and other, equally valid evaluations."""

    @contextlib.contextmanager
    def recurrent(_):
        from make_qwen3_5 import recurrent_prefill

        with recurrent_prefill():
            yield

    ways = {"decoded": lambda _: contextlib.nullcontext(), "sdpa": sdpa}
    if any(layer["type"] == "linear_attention" for layer in common.describe_layers(model)):
        ways["recurrent"] = recurrent
    if has_room(model):
        ways["float64" if model.dtype == torch.float32 else "float32"] = precise
    worst = dict.fromkeys(("logits", "residual", "z", "norm"), 0.0)
    for way, context in ways.items():
        with context(model):
            for i, ids in enumerate(sequences):
                for name in ("", "mixed"):
                    with common.tempered(model, sets.get(name, [])):
                        found = off(base[i, name], last_of(model, ids, decoded=way == "decoded"))
                    worst = {what: max(worst[what], found[what]) for what in worst}
        print(f"noise      {way}: {worst['logits']:.1e} on logits so far", flush=True)
    return worst, list(ways)


# ---------------------------------------------------------------- text


def own_reading(args):
    """How the tokenizers library encodes with the model's tokenizer.json, if it has one."""
    path = cached_file(args.model, "tokenizer.json", revision=args.revision, _raise_exceptions_for_missing_entries=False)
    if path is None:
        return None
    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text, special: tokenizer.encode(text, add_special_tokens=special).ids


def text_of(args, tokenizer):
    """What the tokenizer makes of nasty texts and the template of chats, and which tokens end a generation."""

    def decode(ids):
        return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    texts = []
    for text in TEXTS:
        special = encode(tokenizer, text, True)
        plain = encode(tokenizer, text, False)
        texts.append({"text": text, "ids": plain, "special": special, "decoded": decode(special)})
    reading = own_reading(args)
    if reading and any(reading(x["text"], False) != x["ids"] or reading(x["text"], True) != x["special"] for x in texts):
        print("warning    transformers' tokenizer is not what tokenizer.json says", flush=True)
    draw = random.Random(SEED)
    drawn = [[draw.randrange(len(tokenizer)) for _ in range(24)] for _ in range(8)]
    chats = []
    template = tokenizer.chat_template or ""
    for name, messages in CHATS.items() if template else ():
        for thinking in (None, True, False) if "enable_thinking" in template else (None,):
            rendered = render(tokenizer, messages, thinking)
            # The template has already written what the tokenizer would add.
            ids = None if rendered is None else encode(tokenizer, rendered, False)
            chats.append(
                {"name": name, "messages": messages, "thinking": thinking, "render": rendered, "ids": ids}
            )
    assert not template or any(chat["render"] for chat in chats), "the template refuses every chat"
    return {
        "texts": texts,
        "decodes": [{"ids": ids, "text": decode(ids)} for ids in drawn],
        "chats": chats,
        "stop": stop_tokens(args, tokenizer),
    }


def stop_tokens(args, tokenizer):
    """The EOS tokens of config.json, its text_config, generation_config.json and the tokenizer."""
    config, _ = PreTrainedConfig.get_config_dict(args.model, revision=args.revision)
    ends = [config.get("eos_token_id"), config.get("text_config", {}).get("eos_token_id"), tokenizer.eos_token_id]
    with contextlib.suppress(OSError):  # not every checkpoint has the file
        ends.append(GenerationConfig.from_pretrained(args.model, revision=args.revision).eos_token_id)
    flat = [id for end in ends for id in (end if isinstance(end, list) else [end])]
    return sorted({id for id in flat if id is not None})


# ---------------------------------------------------------------- all of it


def record(model, sequences, sets):
    """The tensors of all sequences, what the noise is measured against, and the checks."""
    vocab = common.text_model(model).config.vocab_size
    sampled = torch.linspace(0, vocab - 1, min(SAMPLED, vocab)).long().unique()
    tensors, base, checks, leads = {"logit_ids": sampled}, {}, {}, []
    for i, ids in enumerate(sequences):
        tensors[f"seq{i}.input_ids"] = ids
        for name, heads in {"": [], **sets}.items():
            with common.tempered(model, heads):
                run = base[i, name] = last_of(model, ids)
                tokens, lead = greedy(model, ids)
            at = f"seq{i}.{name}." if name else f"seq{i}."
            tensors |= {f"{at}greedy": tokens, f"{at}greedy_lead": lead}
            leads.append(lead.min().item())
            if name:
                effect = f"effect_{name}_logits"
                checks[effect] = max(checks.get(effect, 0.0), common.maxdiff(run["logits"], base[i, ""]["logits"]))
                tensors |= {f"{at}logits": run["logits"][sampled], f"{at}h_last": run["hidden"][-1]}
            else:
                tensors |= {f"{at}logits": run["logits"], f"{at}hidden_states": run["hidden"]}
                tensors |= {f"{at}last_layer_out": run["last"]}
                tensors |= {f"{at}o_in.{layer}": z for layer, z in run["z"].items()}
        print(f"sequence   {i + 1} of {len(sequences)}: {len(ids)} tokens", flush=True)
    return tensors, base, checks | {"min_greedy_gap": min(leads)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="ID_OR_DIR")
    parser.add_argument("--revision", help="commit, branch or tag of a hub id")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="what is computed in")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    enable_progress_bar()  # gigabytes may have to come from the hub

    tokenizer = AutoTokenizer.from_pretrained(args.model, revision=args.revision)
    model = load(args)
    sequences, layers = sequences_of(model, tokenizer), common.describe_layers(model)
    sets = spread_sets(layers)
    print(f"model      {type(model).__name__}, {len(layers)} layers, in {args.dtype}", flush=True)
    tensors, base, checks = record(model, sequences, sets)
    worst, ways = noise(model, sequences, sets, base)
    checks |= {f"float32_noise_{what}": value for what, value in worst.items()} | {"noise_of": ways}
    for name in sets:
        effect = checks[f"effect_{name}_logits"]
        assert effect > 100 * worst["logits"], f"set '{name}' moves logits by {effect:.1e} only"
    document = {
        "checkpoint": {
            "model": args.model,
            "revision": getattr(model.config, "_commit_hash", None),
            "dtype": args.dtype,
            "class": type(model).__name__,
        },
        "sampled_logits": True,
        "sequences": [{"len": len(ids), "final_only": True} for ids in sequences],
        "sets": sets,
        "checks": checks,
        "layers": layers,
        "text": text_of(args, tokenizer),
        "versions": common.versions(),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    common.save_tensors(args.out / "golden.safetensors", tensors)
    (args.out / "golden.json").write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
    size = sum(file.stat().st_size for file in args.out.glob("golden.*"))
    print(f"wrote      {args.out}/golden.{{safetensors,json}}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
