"""Golden of an attribution as the scripts of arXiv 2604.11867 compute it, on the real SmolLM2-135M-Instruct: transformers
in float32 on the CPU, hooks on the inputs of every o_proj, the arithmetic in numpy.

    python scripts/golden/attribution.py --gguf models/SmolLM2-135M-Instruct.Q4_1.gguf --out tests/golden/attribution

Writes items.jsonl, which `temper attribute --compat dd` reads, and golden.json:

  items       {id: {prompt_len, total_len, norms [layer * head]}}   what was read of each, without the dropped items
  dropped     ids of items with fewer than three response tokens
  magnitude   [{layer, head, mean_cw, mean_cr, overconf_score, cohen_d}]   by signed d, the largest first
  directional [{layer, head, d_directional, cos_cohort_means, direction_norm}]   by |d|, the largest first
"""

import argparse
import json
import pathlib

import numpy
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

LAST_N = 32
MAX_TOKENS = 2048
GUARD = 1e-8
ITEMS = [
    ("cr", "What is the capital of France?", "The capital of France is Paris."),
    ("cw", "What is the capital of Australia?", "The capital of Australia is Sydney, its largest city."),
    ("cr", "How many legs does a spider have?", "A spider has eight legs."),
    ("cw", "Who wrote Don Quixote?", "Don Quixote was written by William Shakespeare in 1605, and it is a tragedy."),
    (
        "cr",
        "Why is the sky blue?",
        "Sunlight is scattered by the molecules of the air, and short waves are scattered far more than long ones. What "
        "reaches the eye from all directions is therefore mostly blue, while the direct light turns yellow, and red when "
        "the sun stands low.",
    ),
    (
        "cw",
        "Why do we have seasons?",
        "The seasons come from the distance between the Earth and the Sun: in summer the Earth is close to it and in "
        "winter far away, which is why the whole planet is warm in July and cold in January, on both hemispheres at once.",
    ),
    ("cr", "What is 7 times 8?", "7 times 8 is 56."),
    ("cw", "What is 9 times 7?", "9 times 7 is 72."),
    ("cr", "Which planet is the largest?", " Jupiter is the largest planet of the Solar System."),
    ("cw", "Which metal is liquid at room temperature?", "Lead is liquid at room temperature.\nIt is used in thermometers."),
    ("cr", "Name a prime number.", "Seven."),
    ("cw", "Name an even number.", "9"),
    ("cw", "Which ocean is the deepest?", "The Atlantic is the deepest ocean."),
    ("hr", "Who painted the Mona Lisa?", "I think it was Leonardo da Vinci."),
]


@torch.no_grad()
def read(model, tokenizer, prompt, response):
    """Token counts, and z `[layer, token, head, dim]` over the last response tokens; None if there are too few."""
    chat = [{"role": "user", "content": prompt}]
    rendered = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    prompt_len = len(tokenizer(text=rendered, truncation=True, max_length=MAX_TOKENS).input_ids)
    ids = tokenizer(text=rendered + response, truncation=True, max_length=MAX_TOKENS).input_ids
    if len(ids) <= prompt_len + 2:
        return None
    seen = []
    hooks = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
        for layer in model.model.layers
    ]
    model(input_ids=torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    heads = model.config.num_attention_heads
    start = max(prompt_len, len(ids) - LAST_N)
    z = torch.stack([x[start:].reshape(len(ids) - start, heads, -1) for x in seen])
    return prompt_len, len(ids), z


def effect(a, b):
    """Cohen's d along the first axis; 0 where the pooled sd does not exceed the guard."""
    freedom = max(len(a) + len(b) - 2, 1)
    pooled = numpy.sqrt(((len(a) - 1) * a.var(0, ddof=1) + (len(b) - 1) * b.var(0, ddof=1)) / freedom)
    return numpy.where(pooled > GUARD, (a.mean(0) - b.mean(0)) / pooled, 0.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=pathlib.Path, default=pathlib.Path("models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    args = parser.parse_args()
    source = {"pretrained_model_name_or_path": args.gguf.resolve().parent, "gguf_file": args.gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).eval()

    items, dropped, norms, vectors = {}, [], {"cw": [], "cr": []}, {"cw": [], "cr": []}
    lines = []
    for index, (label, prompt, response) in enumerate(ITEMS):
        name = f"q{index}"
        lines.append({"id": name, "prompt": prompt, "response": response, "label": label})
        if label not in norms:
            continue
        found = read(model, tokenizer, prompt, response)
        if found is None:
            dropped.append(name)
            continue
        prompt_len, total_len, z = found
        norm = z.norm(dim=-1).mean(dim=1).numpy()
        items[name] = {
            "prompt_len": prompt_len,
            "total_len": total_len,
            "norms": [round(float(x), 6) for x in norm.ravel()],
        }
        norms[label].append(norm)
        vectors[label].append(z.mean(dim=1).numpy())
    a, b = (numpy.stack(norms[label]) for label in ("cw", "cr"))
    x, y = (numpy.stack(vectors[label]) for label in ("cw", "cr"))
    d = effect(a, b)
    v = x.mean(0) - y.mean(0)
    size = numpy.linalg.norm(v, axis=-1) + GUARD
    unit = v / size[..., None]
    along = effect((x * unit).sum(-1), (y * unit).sum(-1))
    lengths = (numpy.linalg.norm(x.mean(0), axis=-1) + GUARD) * (numpy.linalg.norm(y.mean(0), axis=-1) + GUARD)
    cosine = (x.mean(0) * y.mean(0)).sum(-1) / lengths
    heads = [(layer, head) for layer in range(d.shape[0]) for head in range(d.shape[1])]
    magnitude = [
        {
            "layer": layer,
            "head": head,
            "mean_cw": float(a.mean(0)[layer, head]),
            "mean_cr": float(b.mean(0)[layer, head]),
            "overconf_score": float(a.mean(0)[layer, head] - b.mean(0)[layer, head]),
            "cohen_d": float(d[layer, head]),
        }
        for layer, head in heads
    ]
    directional = [
        {
            "layer": layer,
            "head": head,
            "d_directional": float(along[layer, head]),
            "cos_cohort_means": float(cosine[layer, head]),
            "direction_norm": float(size[layer, head]),
        }
        for layer, head in heads
    ]
    golden = {
        "model": args.gguf.name,
        "items": items,
        "dropped": dropped,
        "magnitude": sorted(magnitude, key=lambda head: -head["cohen_d"]),
        "directional": sorted(directional, key=lambda head: -abs(head["d_directional"])),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (args.out / "golden.json").write_text(json.dumps(golden) + "\n")
    print(f"{len(items)} items, dropped {dropped}")
    print([(head["layer"], head["head"], round(head["cohen_d"], 3)) for head in golden["magnitude"][:5]])


if __name__ == "__main__":
    main()
