"""Goldens of a real model, SmolLM2-135M-Instruct, computed by transformers in float32 on the CPU.

    python scripts/golden/convert_smollm2.py --gguf models/SmolLM2-135M-Instruct.Q4_1.gguf --out models/smollm2-135m
    python scripts/golden/smollm2.py --gguf models/SmolLM2-135M-Instruct.Q4_1.gguf --model models/smollm2-135m \
        --out tests/golden/smollm2-135m

There are two sets of weights, since rounding to bfloat16 moves logits by 0.1: `bf16`, the converted directory, and
`gguf`, the file dequantised to float32 by transformers' loader. Compare an engine with the set that it loads.

Layout of golden.json:

  prompts  [{user, text, ids, bf16: RUN, gguf: RUN, bf16_vs_gguf_logits}]   text: the rendered chat
           RUN = {greedy, text, min_greedy_gap, top5: [[id, token, logit]], h_last: {l2, mean, min, max, first4},
                  half: RUN, zero: RUN}     greedy: at most 64 tokens, with the EOS that ended them
  sets     name -> [[layer, head, lambda]]
  attr     {prompt, target, weights}

and of golden.safetensors (w = weights, i = prompt, L = 30 layers, H = 576, V = 49152), all at the prompt's last token:

  {w}.p{i}.hidden_last        F32 [L+1, H]  transformers' order: the last one is after the final norm
  {w}.p{i}.{set}.h_last       F32 [H]
  bf16.p{i}.logits_last       F32 [V]
  bf16.p{i}.{set}.logits_last F32 [V]
  attr.*                      F32 [L, 9]    as in common.py, for prompt 0
"""

import argparse
import json
import pathlib

import common
import convert_smollm2
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = [
    "What is the capital of France?",
    'Is this statement true or false? "The Sun orbits the Earth." Answer with one word.',
    "Write one short sentence about the sea, then count:   1 2 3",
]
HEADS = [(0, 4), (5, 2), (12, 7), (20, 0), (28, 8)]
SETS = {
    name: [(layer, head, factor) for layer, head in HEADS]
    for name, factor in [("half", 0.5), ("zero", 0.0), ("one", 1.0)]
}
NEW_TOKENS = 64


@torch.no_grad()
def run(model, tokenizer, ids):
    """What is recorded of one prompt; its last logits; and its last token's hidden states."""
    out = model(input_ids=ids[None], output_hidden_states=True, use_cache=False)
    logits, hidden = out.logits[0, -1], torch.stack([h[0, -1] for h in out.hidden_states])
    stop = tokenizer.eos_token_id
    generated = model.generate(
        ids[None],
        attention_mask=torch.ones_like(ids[None]),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=stop,
        pad_token_id=stop,
        return_dict_in_generate=True,
        output_logits=True,
    )
    new = generated.sequences[0, len(ids) :]
    leads = torch.stack([step[0].topk(2).values for step in generated.logits])
    top, h = logits.topk(5), hidden[-1]
    summary = {
        "greedy": new.tolist(),
        "text": tokenizer.decode(new),
        "min_greedy_gap": (leads[:, 0] - leads[:, 1]).min().item(),
        "top5": [[i.item(), tokenizer.decode([i.item()]), round(v.item(), 5)] for v, i in zip(top.values, top.indices)],
        "h_last": {
            "l2": h.norm().item(),
            "mean": h.mean().item(),
            "min": h.min().item(),
            "max": h.max().item(),
            "first4": h[:4].tolist(),
        },
    }
    return summary, logits, hidden


def read_through(model, tokenizer, ids):
    """One prompt, untouched and under every set: the summary, and the tensors by the suffix of their name."""
    summary, logits, hidden = run(model, tokenizer, ids)
    tensors = {"hidden_last": hidden, "logits_last": logits}
    for name, heads in SETS.items():
        with common.tempered(model, heads):
            tempered, t_logits, t_hidden = run(model, tokenizer, ids)
        if name == "one":
            same = torch.equal(t_logits, logits) and tempered["greedy"] == summary["greedy"]
            assert same, "lambda 1 changes something"
            continue
        summary[name] = tempered
        tensors |= {f"{name}.h_last": t_hidden[-1], f"{name}.logits_last": t_logits}
    return summary, tensors


def load(weights, args):
    if weights == "bf16":
        source = {"pretrained_model_name_or_path": args.model}
    else:
        source = {"pretrained_model_name_or_path": args.gguf.resolve().parent, "gguf_file": args.gguf.name}
    return AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=pathlib.Path, default=convert_smollm2.GGUF, metavar="FILE")
    parser.add_argument("--model", type=pathlib.Path, default=convert_smollm2.OUT, metavar="DIR")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    prompts = []
    for user in PROMPTS:
        chat = [{"role": "user", "content": user}]
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        prompts.append({"user": user, "text": text, "ids": tokenizer(text).input_ids})
    document = {"prompts": prompts, "sets": SETS}
    tensors = {}
    for weights in ("bf16", "gguf"):
        model = load(weights, args)
        for i, prompt in enumerate(prompts):
            prompt[weights], found = read_through(model, tokenizer, torch.tensor(prompt["ids"]))
            tensors |= {f"{weights}.p{i}.{name}": x for name, x in found.items()}
            print(f"{weights} {prompt['user']!r}: {prompt[weights]['text']!r}", flush=True)
        if weights == "bf16":
            target, *attributed = common.attribution(model, torch.tensor(prompts[0]["ids"]))
            tensors |= dict(zip(("attr.grad", "attr.ablate_dlogit", "attr.ablate_kl"), attributed))
            document["attr"] = {"prompt": 0, "target": target, "weights": weights}
    for i, prompt in enumerate(prompts):
        logits = [tensors[f"{weights}.p{i}.logits_last"] for weights in ("bf16", "gguf")]
        prompt["bf16_vs_gguf_logits"] = common.maxdiff(*logits)
    # Logits are large: for the GGUF, only the top five are kept.
    large = [name for name in tensors if name.startswith("gguf.") and name.endswith("logits_last")]
    for name in large:
        del tensors[name]
    args.out.mkdir(parents=True, exist_ok=True)
    common.save_tensors(args.out / "golden.safetensors", tensors)
    (args.out / "golden.json").write_text(json.dumps(document, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
