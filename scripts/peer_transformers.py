"""transformers as a contender of bench_peers.py, one task per process.

    python scripts/peer_transformers.py SPEC.json

Reads its task from SPEC.json and prints one JSON object; tempering is that of peer_hooks.py. Decoding is measured twice
in one process: generate(), which is what people call, and a bare loop of forward passes, which is the most that
transformers gives. `untimed_s` is warm-up and calibration.
"""

import json
import pathlib
import sys
import time

from peer_hooks import BATCHES, load, projection, tempered


def weights_mb(model):
    return sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6


def prefill(spec, model):
    """Prompt tokens per second; computes logits at the last position only."""
    import torch

    ids, rates = torch.tensor([spec["prompt"]]), []
    with tempered(model, spec["plans"]):
        for turn in range(spec["repeat"] + 1):
            start = time.perf_counter()
            token = model(input_ids=ids, use_cache=True, logits_to_keep=1).logits[0, -1].argmax().item()
            if turn > 0:  # the first run warms up
                rates.append(len(spec["prompt"]) / (time.perf_counter() - start))
    return {"tokens_per_s": rates, "answers": [[token]]}


def decode(spec, model):
    """Steps of greedy decoding after a prompt, all rows at once, each under its own plan."""
    ways = {"generate": generated, "bare loop": looped}
    with tempered(model, spec["plans"]):
        found = {name: way(spec, model) for name, way in ways.items()}
    assert found["generate"][1] == found["bare loop"][1], "generate() and the bare loop chose different tokens"
    for steps, answers in found.values():
        assert len(steps) == spec["new_tokens"] and len(answers) == spec["rows"]
    return {"step_ms": {name: steps for name, (steps, _) in found.items()}, "answers": found["generate"][1]}


def generated(spec, model):
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Stamps(StoppingCriteria):
        """Never stops; notes the time of every token."""

        def __init__(self):
            self.times = []

        def __call__(self, input_ids, scores, **_):
            self.times.append(time.perf_counter())
            return torch.zeros(input_ids.shape[0], dtype=torch.bool)

    ids, stamps = torch.tensor([spec["prompt"]] * spec["rows"]), Stamps()
    count = spec["new_tokens"] + 1  # the first token comes from the prefill
    stop = StoppingCriteriaList([stamps])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, stopping_criteria=stop)
    steps = [1000 * (b - a) for a, b in zip(stamps.times, stamps.times[1:])]
    return steps, out[:, ids.shape[1] :].tolist()


def looped(spec, model):
    import torch

    ids = torch.tensor([spec["prompt"]] * spec["rows"])
    out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    cache, steps = out.past_key_values, []
    answers = [out.logits[:, -1].argmax(-1, keepdim=True)]
    for _ in range(spec["new_tokens"]):
        start = time.perf_counter()
        out = model(input_ids=answers[-1], past_key_values=cache, use_cache=True)
        answers.append(out.logits[:, -1].argmax(-1, keepdim=True))
        steps.append(1000 * (time.perf_counter() - start))
    return steps, torch.cat(answers, 1).tolist()


# ---------------------------------------------------------------- capture


class Capture:
    """h_last and every head's mean norm over the last response tokens, for recorded texts."""

    def __init__(self, model, items, last_n):
        self.model, self.last_n = model, last_n
        # Texts of similar length share a batch. Padding is on the right, where no earlier token sees it: no mask.
        self.order = sorted(range(len(items)), key=lambda i: len(items[i]["input_ids"]))
        self.items = items

    def batches(self, rows):
        return [self.order[at : at + rows] for at in range(0, len(self.order), rows)]

    def read(self, batch):
        """[(text, h_last, norms)] of one batch."""
        import torch

        texts = [self.items[i] for i in batch]
        ends = [len(text["input_ids"]) for text in texts]
        starts = [max(text["prompt_len"], end - self.last_n) for text, end in zip(texts, ends)]
        ids = torch.tensor([text["input_ids"] + [0] * (max(ends) - end) for text, end in zip(texts, ends)])
        norms, handles = [[] for _ in batch], []
        for layer in range(self.model.config.num_hidden_layers):
            module, dim = projection(self.model, layer)

            def hook(_, args, dim=dim):
                for row, (start, end) in enumerate(zip(starts, ends)):
                    z = args[0][row, start:end].unflatten(-1, (-1, dim))  # [token, head, dim]
                    norms[row].append(z.float().norm(dim=-1).mean(0))

            handles.append(module.register_forward_pre_hook(hook))
        try:
            hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
        finally:
            for handle in handles:
                handle.remove()
        assert all(len(row) == self.model.config.num_hidden_layers for row in norms), "hooks that were not called"
        return [(i, hidden[row, ends[row] - 1].float(), torch.cat(norms[row])) for row, i in enumerate(batch)]

    def best_rows(self):
        """The number of rows at which a text of middle length costs least, and the seconds per text at each number."""
        costs = {}
        for rows in (rows for rows in BATCHES if rows <= len(self.items)):
            at = max(0, (len(self.order) - rows) // 2)
            start = time.perf_counter()
            self.read(self.order[at : at + rows])
            costs[rows] = (time.perf_counter() - start) / rows
        return min(costs, key=costs.get), costs


def capture(spec, model):
    import numpy
    import torch

    begin = time.perf_counter()
    texts = Capture(model, spec["items"], spec["last_n"])
    texts.read(texts.batches(1)[0])
    rows, costs = (1, {}) if spec["variant"] == "loop" else texts.best_rows()
    start = time.perf_counter()
    found = sorted((entry for batch in texts.batches(rows) for entry in texts.read(batch)), key=lambda entry: entry[0])
    h_last, head_norm = (torch.stack([entry[i] for entry in found]).numpy() for i in (1, 2))
    numpy.savez(spec["out"], h_last=h_last, head_norm=head_norm)
    times = {"untimed_s": start - begin, "work_s": time.perf_counter() - start}
    return times | {"rows": rows, "calibration_s_a_text": costs}


TASKS = {"prefill": prefill, "decode1": decode, "decode16": decode, "capture": capture}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    import torch

    spec = json.loads(pathlib.Path(sys.argv[1]).read_text())
    start = time.perf_counter()
    model = load(spec)
    load_s = time.perf_counter() - start
    with torch.inference_mode():
        found = TASKS[spec["task"]](spec, model)
    print(json.dumps(found | {"load_s": load_s, "weights_mb": weights_mb(model), "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
