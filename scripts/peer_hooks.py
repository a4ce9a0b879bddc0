"""The contender of bench_sweep.py: transformers with forward hooks, one task in a process of its own.

    python scripts/peer_hooks.py SPEC.json

Reads its task from SPEC.json and prints one JSON object. `work_s` is the task itself; `untimed_s` is warm-up and
calibration, which no other time includes. SDPA attention, inference mode, DynamicCache; no token ends an answer.
"""

import contextlib
import json
import pathlib
import shutil
import sys
import time

from peers import DTYPES, ROOT

LOGITS_BYTES = 128 << 20  # of one chunk of logits: all [positions, vocab] at once would be gigabytes
BATCHES = [1, 2, 4, 8, 16, 32, 64]  # numbers of rows that the calibration tries


def load(spec):
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    torch.set_num_threads(spec["threads"])
    dtype = getattr(torch, DTYPES[spec["dtype"]])
    model = AutoModelForCausalLM.from_pretrained(spec["hf_dir"], dtype=dtype, attn_implementation="sdpa").eval()
    assert model.config._attn_implementation == "sdpa" and torch.get_num_threads() == spec["threads"]
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0, eos_token_id=None)
    return model


def projection(model, layer):
    """The output projection of a layer, and the width of the heads that it reads."""
    module, config = model.model.layers[layer], model.config
    if hasattr(module, "linear_attn"):  # a gated delta net: its value heads
        return module.linear_attn.out_proj, module.linear_attn.out_proj.in_features // config.linear_num_value_heads
    return module.self_attn.o_proj, module.self_attn.o_proj.in_features // config.num_attention_heads


@contextlib.contextmanager
def tempered(model, plans):
    """Scales z where the output projection reads it. plans: [[layer, head, factor], ..] of each row of the batch; a
    single plan is for all rows. A layer that no plan touches has no hook. Fails if a hook was not called."""
    layers = sorted({layer for plan in plans for layer, _, factor in plan if factor != 1})
    handles, calls = [], dict.fromkeys(layers, 0)
    for layer in layers:
        module, dim = projection(model, layer)
        scale = module.weight.new_ones(len(plans), 1, module.in_features)
        for row, plan in enumerate(plans):
            for _, head, factor in filter(lambda entry: entry[0] == layer, plan):
                scale[row, 0, head * dim : (head + 1) * dim] = factor

        def hook(_, args, layer=layer, scale=scale):
            calls[layer] += 1
            return (args[0] * scale,)

        handles.append(module.register_forward_pre_hook(hook))
    try:
        yield
        assert all(calls.values()), f"hooks that were not called: {calls}"
    finally:
        for handle in handles:
            handle.remove()


# ---------------------------------------------------------------- the sweep


def generate(model, prompts, plans, new_tokens):
    """Greedy answers of exactly new_tokens tokens to prompts of any lengths, padded on the left."""
    import torch

    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    with tempered(model, plans):
        found = model.generate(ids, attention_mask=mask, max_new_tokens=new_tokens)
    assert found.shape == (len(prompts), longest + new_tokens), f"answers of another length: {found.shape}"
    return found[:, longest:].tolist()


def sweep(spec):
    """Every prompt under every arm: one by one (loop), one batch per arm (batch), or all at once (rows)."""
    prompts, arms = spec["prompts"], spec["arms"]
    model = load(spec)
    if spec["variant"] == "loop":
        parts = [([prompt], [arm]) for arm in arms for prompt in prompts]
    elif spec["variant"] == "batch":
        parts = [(prompts, [arm]) for arm in arms]
    else:
        parts = [(prompts * len(arms), [arm for arm in arms for _ in prompts])]
    start = time.perf_counter()
    generate(model, *parts[0], 2)
    warm, answers = time.perf_counter(), []
    for part in parts:
        answers += generate(model, *part, spec["new_tokens"])
    return {"untimed_s": warm - start, "work_s": time.perf_counter() - warm, "answers": answers}


# ---------------------------------------------------------------- the causal map


class Scorer:
    """Log-probabilities of recorded responses; computes logits at their positions only."""

    def __init__(self, model, items):
        import torch

        self.torch, self.model, self.items = torch, model, items
        self.base = [self.score_base(item) for item in items]

    def hidden(self, item, plans):
        """[row, response token, d] of a text under each of the plans; nothing is padded, so SDPA needs no mask."""
        ids = self.torch.tensor([item["input_ids"]]).expand(len(plans), -1)
        with tempered(self.model, plans):
            out = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
        return out[:, item["prompt_len"] - 1 : -1]

    def log_probs(self, hidden):
        return self.model.lm_head(hidden).float().log_softmax(-1)

    def score_base(self, item):
        log_probs = self.log_probs(self.hidden(item, [[]]))[0]
        target = self.torch.tensor(item["input_ids"][item["prompt_len"] :])[:, None]
        return log_probs, log_probs.exp(), target, log_probs.gather(-1, target), log_probs.argmax(-1)

    def score(self, index, plans):
        """[sum of Δ log-prob, sum of KL(untempered || tempered), share of equal argmax] per plan, in nats."""
        item = self.items[index]
        log_base, base, target, target_base, argmax_base = self.base[index]
        hidden, found = self.hidden(item, plans), []
        rows = max(1, LOGITS_BYTES // (4 * log_base.numel()))
        for chunk in hidden.split(rows):
            log_probs = self.log_probs(chunk)
            delta = (log_probs.gather(-1, target.expand(len(chunk), -1, -1)) - target_base).sum((1, 2))
            agreement = (log_probs.argmax(-1) == argmax_base).float().mean(1)
            divergence = log_probs.neg_().add_(log_base).mul_(base).sum(-1).sum(1)
            found += zip(delta.tolist(), divergence.tolist(), agreement.tolist())
        return found


def best_batch(scorer, plans):
    """The number of rows at which a row costs least, and the seconds per row at each number tried."""
    middle = sorted(range(len(scorer.items)), key=lambda i: len(scorer.items[i]["input_ids"]))[len(scorer.items) // 2]
    costs = {}
    for rows in (rows for rows in BATCHES if rows <= len(plans)):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            scorer.score(middle, plans[:rows])
            times.append(time.perf_counter() - start)
        costs[rows] = min(times) / rows
    return min(costs, key=costs.get), costs


def causal_map(spec):
    """Every text under every cell's plan, `batch` rows at once or one after another."""
    model, plans, items = load(spec), spec["plans"], spec["items"]
    start = time.perf_counter()
    warm = Scorer(model, items[:1])
    warm.score(0, plans[:1])
    batch, costs = (1, {}) if spec["variant"] == "loop" else best_batch(Scorer(model, items), plans)
    ready = time.perf_counter()
    scorer = Scorer(model, items)
    base = time.perf_counter()
    scores = {}
    if spec["variant"] == "loop":
        for plan, item in spec["cells"]:
            scores[f"{plan},{item}"] = scorer.score(item, [plans[plan]])[0]
    else:
        for item in range(len(items)):
            mine = [plan for plan, at in spec["cells"] if at == item]
            for at in range(0, len(mine), batch):
                part = mine[at : at + batch]
                found = scorer.score(item, [plans[plan] for plan in part])
                scores |= {f"{plan},{item}": score for plan, score in zip(part, found)}
    end = time.perf_counter()
    assert len(scores) == len(spec["cells"])
    timed = {"untimed_s": ready - start, "work_s": end - ready, "base_s": base - ready, "cells_s": end - base}
    return timed | {"batch": batch, "calibration_s_a_row": costs, "scores": scores}


# ---------------------------------------------------------------- what both sides read


def make_model(spec):
    """A model of seeded random weights in bfloat16, the same for both sides. Matrices have a variance of 1 / inputs:
    transformers' own 0.02 leaves attention so little to say that no plan would show."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    out = pathlib.Path(spec["out"])
    torch.manual_seed(spec["seed"])  # all but matrices keep transformers' own initial values
    config = AutoConfig.from_pretrained(spec["config"]).get_text_config()
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(spec["seed"])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    shutil.copy(ROOT / spec["tokenizer"], part)
    part.rename(out)
    return {}


def prompts(spec):
    """The token ids of questions, by the model's chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(spec["hf_dir"])
    ask = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    chats = [[{"role": "user", "content": text}] for text in spec["texts"]]
    return {"prompts": [tokenizer.apply_chat_template(chat, **ask)["input_ids"] for chat in chats]}


def responses(spec):
    """Greedy answers of given lengths: the recorded responses of the causal map."""
    model = load(spec)
    longest = max(spec["lengths"])
    answers = generate(model, spec["prompts"], [[]], longest)
    return {"responses": [answer[:length] for answer, length in zip(answers, spec["lengths"])]}


TASKS = {"sweep": sweep, "map": causal_map, "make": make_model, "prompts": prompts, "responses": responses}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    import torch

    spec = json.loads(pathlib.Path(sys.argv[1]).read_text())
    with torch.inference_mode() if spec["task"] != "make" else contextlib.nullcontext():
        found = TASKS[spec["task"]](spec)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
