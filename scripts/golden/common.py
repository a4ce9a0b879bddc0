"""What the golden generators share: weights, hooks, goldens, tokenizer.

A generator (make_*.py) builds tiny seeded models of one architecture, saves them as `save_pretrained` does or as the
hub lays them out, and records what transformers computes for them. Nothing needs the network or a GPU. All weights are
rounded to values that bfloat16 holds before anything is computed. So an F32 and a BF16 file of a model hold the same
numbers, and one set of goldens, always computed in float32 with eager attention, serves both.

Layout of golden.safetensors (i = sequence, T = its length, L = layers, H = hidden size, V = vocabulary, D_l = width of
the output projection's input in layer l). Where golden.json says `final_only` for a sequence, only its last position is
kept, and the dimension T is gone:

  seq{i}.input_ids       I64 [T]
  seq{i}.logits          F32 [T, V]
  seq{i}.hidden_states   F32 [L+1, T, H]  transformers' order: 0 = embeddings, k = output of layer k-1 for k < L,
                                          L = output of the FINAL NORM, not of the last layer
  seq{i}.last_layer_out  F32 [H]          last position, output of the last layer BEFORE the final norm
  seq{i}.o_in.{l}        F32 [T, D_l]     input of o_proj (out_proj in linear-attention layers), heads side by side
  seq{i}.greedy          I64 [16]         greedy continuation, EOS disabled, with the cache
  seq{i}.{set}.logits    F32 [V]          tempered, last position; [T, V] for sequence `attr.seq` of golden.json
  seq{i}.{set}.h_last    F32 [H]          tempered, final norm at the last position
  seq{i}.{set}.greedy    I64 [16]         tempered
  attr.grad              F32 [L, heads]   d logit[t] / d lambda of each head at lambda = 1
  attr.ablate_dlogit     F32 [L, heads]   logit[t] with this head alone at lambda = 0, minus the untouched logit[t]
  attr.ablate_kl         F32 [L, heads]   KL(untouched || ablated) of the next token, in nats

The attributions are taken at the last position of sequence `attr.seq`, for the token t = `attr.target` it predicts.

Layout of golden.json:

  sequences  [{len, final_only}]
  sets       name -> [[layer, head, lambda]]; a set `one` has lambda 1 and may change nothing: checked here, not stored
  attr       {seq, target}
  layers     [{index, proj, type, heads, head_dim, in_features}]
  checks     float32_noise_logits: largest difference between equally valid evaluations (a tolerance is a few times it);
             min_greedy_gap: smallest lead of a greedy token over the next; effect_{set}_logits: what tempering moved
  seed, versions

make_checkpoint.py says what the files of real checkpoints have in addition, and what they lack.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import load_file, save_file

GREEDY = 16  # greedy tokens recorded
ATTRIBUTED = 1  # the sequence on which heads are attributed

torch.set_num_threads(2)  # part of the recipe: one thread rounds some products differently
transformers.utils.logging.disable_progress_bar()


# ---------------------------------------------------------------- weights


def randn(p, generator):
    return torch.randn(p.shape, generator=generator)


def uniform(p, generator, low, high):
    return low + (high - low) * torch.rand(p.shape, generator=generator)


def no_rules(name, p, generator):
    return None


@torch.no_grad()
def randomize(model, seed, rules=no_rules):
    """Overwrites every parameter, tensor by tensor in the order of their names, from one seeded generator.

    `rules` returns the new values, or None for: 1 + 0.2 N(0, 1) for vectors, 0.5 N(0, 1) for embeddings,
    N(0, 1 / fan_in) for the rest.
    """
    generator = torch.Generator().manual_seed(seed)
    params = dict(model.named_parameters())  # tied tensors appear once
    # Gemma 4's layer_scalar is a buffer, yet in the checkpoint
    params |= {name: buffer for name, buffer in model.named_buffers() if name.endswith("layer_scalar")}
    for name in sorted(params):
        p = params[name]
        new = rules(name, p, generator)
        if new is None:
            z = randn(p, generator)
            if p.dim() == 1:
                new = 1 + 0.2 * z
            elif "embed_tokens" in name:
                new = 0.5 * z
            else:
                new = z / math.sqrt(p[0].numel())
        p.copy_(new.to(torch.bfloat16).to(torch.float32))


def prepare(model_class, config, seed, rules=no_rules):
    """A model in float32 with eager attention and seeded weights."""
    config._attn_implementation = "eager"
    model = model_class(config).float().eval()
    randomize(model, seed, rules)
    return model


# ---------------------------------------------------------------- hooks


def text_model(model):
    """The decoder: layers, embedding and final norm, inside a multimodal wrapper too."""
    return getattr(model.model, "language_model", model.model)


def out_projections(model):
    """(output projection, heads, head_dim) of every layer."""
    text = text_model(model)
    projections = []
    for layer in text.layers:
        if hasattr(layer, "linear_attn"):
            module, heads = layer.linear_attn.out_proj, text.config.linear_num_value_heads
        else:
            module, heads = layer.self_attn.o_proj, text.config.num_attention_heads
        projections.append((module, heads, module.in_features // heads))
    return projections


@contextlib.contextmanager
def hooked(pairs):
    """Forward pre-hooks on (module, function of the input) pairs; what a function returns replaces the input."""
    handles = []
    for module, function in pairs:

        def hook(_, args, function=function):
            new = function(args[0])
            return None if new is None else (new, *args[1:])

        handles.append(module.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tempered(model, heads):
    """Scales the output projection's input at each (layer, head, lambda)."""
    projections = out_projections(model)
    by_layer = {}
    for layer, head, factor in heads:
        assert head < projections[layer][1], f"layer {layer} has no head {head}"
        by_layer.setdefault(layer, []).append((head, factor))

    def scale(layer):
        dim = projections[layer][2]

        def scaled(x):
            x = x.clone()
            for head, factor in by_layer[layer]:
                x[..., head * dim : (head + 1) * dim] *= factor
            return x

        return scaled

    return hooked([(projections[layer][0], scale(layer)) for layer in by_layer])


# ---------------------------------------------------------------- runs


@torch.no_grad()
def forward(model, ids):
    """Everything that is recorded of one pass; hooks set earlier see and change the tensors first."""
    z, residual = {}, {}
    projections = [module for module, _, _ in out_projections(model)]
    keep = [(m, lambda x, layer=layer: z.__setitem__(layer, x[0].clone())) for layer, m in enumerate(projections)]
    keep.append((text_model(model).norm, lambda x: residual.__setitem__("last", x[0, -1].clone())))
    with hooked(keep):
        out = model(input_ids=ids[None], output_hidden_states=True, use_cache=False)
    hidden = torch.stack([h[0] for h in out.hidden_states])
    return {"logits": out.logits[0], "hidden": hidden, "z": z, "last": residual["last"]}


@torch.no_grad()
def greedy_cached(model, ids, n=GREEDY):
    model.generation_config.eos_token_id = None
    mask = torch.ones_like(ids[None])
    out = model.generate(ids[None], attention_mask=mask, max_new_tokens=n, do_sample=False, pad_token_id=0)
    return out[0, len(ids) :].clone()


@torch.no_grad()
def greedy_recomputed(model, ids, n=GREEDY):
    """The greedy continuation by whole forward passes, and the smallest lead of a token over the next."""
    all_ids, gap = ids, math.inf
    for _ in range(n):
        top = model(input_ids=all_ids[None], use_cache=False).logits[0, -1].topk(2)
        gap = min(gap, (top.values[0] - top.values[1]).item())
        all_ids = torch.cat([all_ids, top.indices[:1]])
    return all_ids[len(ids) :], gap


def attribution(model, ids):
    """The predicted token; and for each head its gradient and its ablation's effect on logit and distribution."""

    def last_logits():
        return model(input_ids=ids[None], use_cache=False).logits[0, -1]

    projections = out_projections(model)
    layers, heads = len(projections), projections[0][1]
    with torch.no_grad():
        base = last_logits()
    target = base.argmax().item()
    factor = torch.ones(layers, heads, requires_grad=True)
    scale = [
        (module, lambda x, layer=layer, dim=dim: x * factor[layer].repeat_interleave(dim))
        for layer, (module, _, dim) in enumerate(projections)
    ]
    with hooked(scale):
        last_logits()[target].backward()
    model.zero_grad(set_to_none=True)
    dlogit, kl = torch.zeros(layers, heads), torch.zeros(layers, heads)
    log_p = base.log_softmax(-1)
    with torch.no_grad():
        for layer in range(layers):
            for head in range(heads):
                with tempered(model, [(layer, head, 0.0)]):
                    ablated = last_logits()
                dlogit[layer, head] = ablated[target] - base[target]
                kl[layer, head] = (log_p.exp() * (log_p - ablated.log_softmax(-1))).sum()
    return target, factor.grad.clone(), dlogit, kl


def random_sequences(vocab, lengths, seed, lowest=8):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(lowest, vocab, (n,), generator=generator) for n in lengths]


def maxdiff(a, b):
    return (a - b).abs().max().item()


@torch.no_grad()
def noise(model, sequences, sets, variants=()):
    """Largest difference of logits, tempered or not, between equally valid evaluations.

    These are eager and SDPA attention, float64 weights (transformers keeps some steps in float32 even then), and
    `variants`: context managers, e.g. another form of the same recurrence.
    """

    def all_logits():
        logits = []
        for heads in [[], *sets.values()]:
            with tempered(model, heads):
                logits += [model(input_ids=ids[None], use_cache=False).logits[0].float() for ids in sequences]
        return logits

    base = all_logits()

    def compare():
        return max(maxdiff(a, b) for a, b in zip(base, all_logits()))

    model.set_attn_implementation("sdpa")
    worst = compare()
    model.set_attn_implementation("eager")
    model.double()
    worst = max(worst, compare())
    model.float()
    for variant in variants:
        with variant():
            worst = max(worst, compare())
    return worst


# ---------------------------------------------------------------- goldens


def uniform_sets(heads, one=()):
    """The sets that scale all of `heads` alike; `one` are further heads of the set at lambda 1."""
    values = {"half": (heads, 0.5), "zero": (heads, 0.0), "one": ([*heads, *one], 1.0)}
    return {name: [(*at, factor) for at in where] for name, (where, factor) in values.items()}


def changes_something(heads):
    return any(factor != 1.0 for _, _, factor in heads)


def record(model, sequences, final_only, sets):
    """The tensors of all sequences, and the checks; transformers must agree with itself."""
    tensors, checks = {}, {}
    gaps, distinct = [], []
    for i, ids in enumerate(sequences):
        last_only = i in final_only
        base = forward(model, ids)
        tensors[f"seq{i}.input_ids"] = ids
        tensors[f"seq{i}.logits"] = base["logits"][-1] if last_only else base["logits"]
        tensors[f"seq{i}.hidden_states"] = base["hidden"][:, -1] if last_only else base["hidden"]
        tensors[f"seq{i}.last_layer_out"] = base["last"]
        for layer, z in base["z"].items():
            tensors[f"seq{i}.o_in.{layer}"] = z[-1] if last_only else z
        for name, heads in {"": [], **sets}.items():
            with tempered(model, heads):
                run, tokens = forward(model, ids), greedy_cached(model, ids)
                again, gap = greedy_recomputed(model, ids)
            assert torch.equal(tokens, again), f"the cache changes what follows sequence {i} under '{name}'"
            gaps.append(gap)
            if not name:
                distinct.append(len(set(tokens.tolist())))
                tensors[f"seq{i}.greedy"] = tokens
            elif changes_something(heads):
                effect = f"effect_{name}_logits"
                checks[effect] = max(checks.get(effect, 0.0), maxdiff(run["logits"], base["logits"]))
                tensors[f"seq{i}.{name}.logits"] = run["logits"] if i == ATTRIBUTED else run["logits"][-1]
                tensors[f"seq{i}.{name}.h_last"] = run["hidden"][-1, -1]
                tensors[f"seq{i}.{name}.greedy"] = tokens
            else:
                same = torch.equal(run["logits"], base["logits"]) and torch.equal(tokens, tensors[f"seq{i}.greedy"])
                assert same, f"lambda 1 changes sequence {i}"
                checks["lambda1_bitwise_equal"] = True
        checks["logit_std"] = round(base["logits"].std().item(), 3)
        checks["hidden_rms_by_layer"] = [round(h[-1].pow(2).mean().sqrt().item(), 3) for h in base["hidden"]]
    return tensors, checks, min(gaps), min(distinct)


def layer_type(model, layer):
    types = getattr(model.config.get_text_config(), "layer_types", None)
    return types[layer] if types else "full_attention"


def describe_layers(model):
    return [
        {
            "index": layer,
            "proj": "out_proj" if "linear" in layer_type(model, layer) else "o_proj",
            "type": layer_type(model, layer),
            "heads": heads,
            "head_dim": dim,
            "in_features": heads * dim,
        }
        for layer, (_, heads, dim) in enumerate(out_projections(model))
    ]


def versions():
    return {"torch": torch.__version__, "transformers": transformers.__version__}


def save_tensors(path, tensors):
    save_file({name: x.contiguous() for name, x in tensors.items()}, path)
    os.chmod(path, 0o644)  # safetensors writes 0600


def write_goldens(model, out, sequences, final_only, sets, seed, variants=()):
    """Runs everything and writes golden.safetensors and golden.json."""
    tensors, checks, gap, distinct = record(model, sequences, final_only, sets)
    target, grad, dlogit, kl = attribution(model, sequences[ATTRIBUTED])
    tensors |= {"attr.grad": grad, "attr.ablate_dlogit": dlogit, "attr.ablate_kl": kl}
    checks["float32_noise_logits"] = noise(model, sequences, sets, variants)
    checks |= {"min_greedy_gap": gap, "min_distinct_greedy": distinct}
    document = {
        "sequences": [{"len": len(ids), "final_only": i in final_only} for i, ids in enumerate(sequences)],
        "sets": sets,
        "checks": checks,
        "attr": {"seq": ATTRIBUTED, "target": target},
        "layers": describe_layers(model),
        "versions": versions(),
        "seed": seed,
    }
    save_tensors(out / "golden.safetensors", tensors)
    (out / "golden.json").write_text(json.dumps(document, indent=1))
    return checks


# ---------------------------------------------------------------- files of a checkpoint


def save_weights(path, tensors):
    """A safetensors file with the header that save_pretrained writes."""
    save_file({name: x.contiguous() for name, x in tensors.items()}, path, metadata={"format": "pt"})
    os.chmod(path, 0o644)


def rewrite_weights(out, dtype_of, extra=None):
    """Gives the saved weights other types (by name), and adds tensors."""
    path = out / "model.safetensors"
    tensors = load_file(path) | (extra or {})
    save_weights(path, {name: x.to(dtype_of(name)) for name, x in tensors.items()})


def shard_weights(out, files):
    """Replaces model.safetensors by `files` (name -> tensors) and an index."""
    (out / "model.safetensors").unlink()
    for name, tensors in files.items():
        save_weights(out / name, tensors)
    total = sum(x.numel() * x.element_size() for tensors in files.values() for x in tensors.values())
    where = {name: file for file, tensors in files.items() for name in tensors}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def dump_config(path, config):
    path.write_text(json.dumps(config, indent=2, sort_keys=True))


@torch.no_grad()
def check_reload(out, model, ids, *classes):
    """Checks that from_pretrained on the directory gives the logits of `model`, bit for bit."""
    expected = model(input_ids=ids[None], use_cache=False).logits
    for cls in classes or [transformers.AutoModelForCausalLM]:
        settings = {"dtype": torch.float32, "attn_implementation": "eager"}
        loaded, info = cls.from_pretrained(out, **settings, output_loading_info=True)
        assert not info["missing_keys"], info
        assert torch.equal(loaded(input_ids=ids[None], use_cache=False).logits, expected), (out, cls)


# ---------------------------------------------------------------- tokenizer

CORPUS = (
    "the quick brown fox jumps over the lazy dog. a head in the attention layer reads the token "
    "and writes to the residual stream; the other heads read what it wrote. is this true or false? "
    "the answer is: yes, it is. no, it is not. one two three four five six seven eight nine ten. "
) * 4

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write_tokenizer(out, vocab):
    """A byte-level BPE of exactly `vocab` tokens with a ChatML template, so that text works on the tiny models."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    assert tokenizer.get_vocab_size() == vocab, tokenizer.get_vocab_size()
    special = {"pad_token": "<pad>", "eos_token": "<|im_end|>", "bos_token": "<bos>", "unk_token": "<unk>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(out)


# ---------------------------------------------------------------- command line


def seed_quality(model, sequences, sets, variants, most_noise, least_lead):
    """(noise, smallest greedy lead, fewest distinct tokens), or None for a model unfit for strict tests.

    Now and then a tiny random model normalises a vector that is nearly zero, which amplifies rounding a thousandfold,
    or has two nearly equal logits.
    """
    worst = noise(model, sequences, sets, variants)
    if worst > most_noise:
        return None
    gap, distinct = math.inf, GREEDY
    for heads in [[], *filter(changes_something, sets.values())]:
        for ids in sequences:
            with tempered(model, heads):
                tokens, lead = greedy_recomputed(model, ids)
            gap = min(gap, lead)
            if not heads:
                distinct = min(distinct, len(set(tokens.tolist())))
            if gap < least_lead or distinct < 4:
                return None
    return worst, gap, distinct


@dataclasses.dataclass
class Golden:
    """One directory: a model, its sequences, and its sets of (layer, head, lambda)."""

    build: Callable  # takes a seed
    seed: int  # found by --find-seed
    lengths: list
    sequence_seed: int
    final_only: set
    sets: dict
    suffix: str = ""  # of the directory, appended to --out
    vocab: int = 320
    ids_below: int = 320  # sequences keep away from special tokens at the end of the vocabulary
    variants: tuple = ()
    most_noise: float = 1e-4
    least_lead: float = 0.012
    finish: Callable | None = None  # takes (model, directory, sequences, seed); writes other files and checks them

    def sequences(self):
        return random_sequences(self.ids_below, self.lengths, self.sequence_seed)

    def find_seed(self):
        sequences = self.sequences()
        for candidate in range(1, 400):
            model = self.build(candidate)
            quality = seed_quality(model, sequences, self.sets, self.variants, self.most_noise, self.least_lead)
            if quality:
                return "seed {}: noise {:.1e}, smallest lead {:.4f}, {} distinct tokens".format(candidate, *quality)
        return "no seed found"

    def write(self, out, seed):
        out.mkdir(parents=True, exist_ok=True)
        sequences, model = self.sequences(), self.build(seed)
        model.save_pretrained(out)
        write_tokenizer(out, self.vocab)
        if self.finish:
            self.finish(model, out, sequences, seed)
        checks = write_goldens(model, out, sequences, self.final_only, self.sets, seed, self.variants)
        for file in out.iterdir():
            file.chmod(0o644)
        values = (checks[k] for k in ("float32_noise_logits", "min_greedy_gap", "min_distinct_greedy"))
        print(f"{out}:", "noise {:.1e}, smallest lead {:.4f}, {} distinct tokens".format(*values), flush=True)


def main(doc, *goldens):
    """The command line of a generator."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="write the models and their goldens here")
    parser.add_argument("--seed", type=int, help="of the weights, in place of the chosen ones")
    parser.add_argument("--find-seed", action="store_true", help="print the first seed fit for strict tests")
    if len(goldens) > 1:
        suffixes = [golden.suffix for golden in goldens]
        parser.add_argument("--only", choices=suffixes, help="this model alone, by the end of its directory's name")
    args = parser.parse_args()
    if args.find_seed == bool(args.out):
        parser.error("give either --out DIR or --find-seed")
    only = getattr(args, "only", None)
    for golden in goldens:
        if only is not None and golden.suffix != only:
            continue
        if args.find_seed:
            print(f"'{golden.suffix}'", golden.find_seed(), flush=True)
        else:
            out = args.out.with_name(args.out.name + golden.suffix)
            golden.write(out, golden.seed if args.seed is None else args.seed)
