"""Checks that a features.npz or scores.npz keeps its contract: keys, shapes, types, finite numbers, and a meta that
describes it.

    python scripts/check_npz.py runs/x/features.npz [--items items.jsonl]

Prints one line if all is well; otherwise names what is wrong and exits 1. Needs numpy only.
"""

import argparse
import json
import re
import sys
import zipfile

import numpy

IDENTITY = ["model", "weights_sha256", "dtype", "device", "version"]
META = IDENTITY + ["plan", "site"]
Z = re.compile(r"blocks\.(\d+)\.(?:linear_)?attn\.hook_z")


class Wrong(Exception):
    pass


def demand(holds, message):
    if not holds:
        raise Wrong(message)


def array(file, key, kind, rank):
    """The array under `key`, of kind f32, f64, int or text; f32 must be finite, f64 may be missing (NaN)."""
    demand(key in file, f"'{key}' is missing")
    try:
        x = file[key]
    except (OSError, ValueError, zipfile.BadZipFile) as error:  # objects, which need pickle; or a damaged file
        raise Wrong(f"'{key}' cannot be read: {error}") from None
    kinds = {"f32": x.dtype == numpy.float32, "f64": x.dtype == numpy.float64}
    fits = {**kinds, "int": x.dtype.kind in "iu", "text": x.dtype.kind == "U"}[kind]
    demand(fits, f"'{key}' is {x.dtype}, not {kind}")
    demand(x.ndim == rank, f"'{key}' has shape {list(x.shape)}, not {rank} dimensions")
    if kind == "f64":
        demand(not numpy.isinf(x).any(), f"'{key}' holds an infinity")
    if kind == "f32" and not numpy.isfinite(x).all():
        first = [int(i) for i in numpy.argwhere(~numpy.isfinite(x))[0]]
        raise Wrong(f"'{key}' is {x[tuple(first)]} at {first}")
    return x


def rows(x, n, key):
    demand(len(x) == n, f"'{key}' has {len(x)} rows, h_last has {n}")
    return x


def check_layers(file, n, d):
    if "layers" not in file and "h_layers" not in file:
        return 0
    layers = array(file, "layers", "int", 1)
    distinct = len(set(layers.tolist())) == len(layers) and (layers >= 0).all()
    demand(distinct, f"'layers' is {layers.tolist()}: not distinct layers")
    if len(layers) == 0 and "h_layers" not in file:
        return 0
    h_layers = rows(array(file, "h_layers", "f32", 3), n, "h_layers")
    expected = (n, len(layers), d)
    demand(h_layers.shape == expected, f"'h_layers' has shape {list(h_layers.shape)}, not {list(expected)}")
    return len(layers)


def check_mean(file, n, d, meta):
    """h_mean is there if meta says over how many layers; if h_layers has these, it must be their mean."""
    k = meta.get("mean_layers")
    demand((k is not None) == ("h_mean" in file), f"meta's mean_layers is {k}, but h_mean is {'h_mean' in file}")
    if k is None:
        return
    h_mean = rows(array(file, "h_mean", "f32", 2), n, "h_mean")
    demand(h_mean.shape == (n, d), f"'h_mean' has shape {list(h_mean.shape)}, not {[n, d]}")
    layers = file["layers"].tolist() if "layers" in file else []
    if len(layers) >= k and layers[-k:] == list(range(layers[-1] - k + 1, layers[-1] + 1)):
        off = numpy.abs(file["h_layers"][:, -k:].mean(1) - h_mean).max()
        largest = max(1.0, float(numpy.abs(h_mean).max()))
        demand(off <= 1e-5 * largest, f"'h_mean' is off the mean of the last {k} of 'h_layers' by {off}")


def check_columns(file, n, meta):
    """Checks what items bring, and what was generated. Returns the number of numeric columns."""
    pool = meta.get("pool", "last")
    demand(re.fullmatch(r"last|last:[1-9][0-9]*|response", pool), f"meta's pool is {pool!r}")
    if "prompt_hash" in file:
        hashes = rows(array(file, "prompt_hash", "text", 1), n, "prompt_hash")
        bad = [h for h in hashes.tolist() if not re.fullmatch("[0-9a-f]{32}", h)]
        demand(not bad, f"'prompt_hash' holds {bad[:1]}, not 32 hexadecimal digits")
        texts = rows(array(file, "text_hash", "text", 1), n, "text_hash").tolist()
        bad = [h for h in texts if not re.fullmatch("[0-9a-f]{32}", h)]
        demand(not bad, f"'text_hash' holds {bad[:1]}, not 32 hexadecimal digits")
    numbers = [key for key in file if key.startswith(("scores.", "fields."))]
    for key in numbers:
        rows(array(file, key, "f64", 1), n, key)
    demand(("generated" in meta) == ("response" in file), "'response' and meta's generated do not go together")
    if "response" in file:
        rows(array(file, "response", "text", 1), n, "response")
        reasons = rows(array(file, "finish_reason", "text", 1), n, "finish_reason")
        demand(set(reasons.tolist()) <= {"stop", "length"}, f"'finish_reason' holds {sorted(set(reasons.tolist()))}")
        measured = meta.get("generated_vs_forced") or {}
        demand("worst_abs" in measured, "meta's generated_vs_forced does not say worst_abs")
    return len(numbers)


def check_heads(file, n):
    if "head_norm" not in file and "slot_layer" not in file:
        return []
    norms = rows(array(file, "head_norm", "f32", 2), n, "head_norm")
    demand((norms >= 0).all(), "'head_norm' has a negative norm")
    slots = norms.shape[1]
    layer, head = (array(file, key, "int", 1) for key in ("slot_layer", "slot_head"))
    for key, x in [("slot_layer", layer), ("slot_head", head)]:
        demand(len(x) == slots, f"'{key}' has {len(x)} entries, head_norm has {slots} columns")
    pairs = list(zip(layer.tolist(), head.tolist()))
    demand(all(a < b for a, b in zip(pairs, pairs[1:])), "slots are not in ascending (layer, head) order")
    demand(not pairs or pairs[0] >= (0, 0), "a slot is negative")
    return pairs


def check_z(file, n, slots):
    keys = [key for key in file if key.startswith("blocks.")]
    for key in keys:
        match = Z.fullmatch(key)
        demand(match, f"'{key}' is not blocks.LAYER.attn.hook_z nor blocks.LAYER.linear_attn.hook_z")
        z = rows(array(file, key, "f32", 3), n, key)
        heads = sum(layer == int(match[1]) for layer, _ in slots)
        demand(z.shape[1] == heads, f"'{key}' has {z.shape[1]} heads, the slots of that layer are {heads}")
    return len(keys)


def check_lengths(file, n):
    prompt, total, at = (rows(array(file, k, "int", 1), n, k) for k in ("prompt_len", "total_len", "token_index"))
    for i, (p, t, a) in enumerate(zip(prompt.tolist(), total.tolist(), at.tolist())):
        demand(0 <= p <= t, f"row {i}: prompt_len {p}, total_len {t}")
        demand(0 <= a < t, f"row {i}: token_index {a} is not inside its {t} tokens")


def check_meta(file, keys):
    demand("meta" in file, "'meta' is missing")
    text = array(file, "meta", "text", file["meta"].ndim)
    demand(text.size == 1, f"'meta' is {text.size} texts, not one")
    try:
        meta = json.loads(text.item())
    except json.JSONDecodeError as error:
        raise Wrong(f"'meta' is not JSON: {error}") from None
    demand(isinstance(meta, dict), "'meta' is not a JSON object")
    missing = [key for key in keys if key not in meta]
    demand(not missing, f"'meta' lacks {', '.join(missing)}")
    digest = meta["weights_sha256"]
    hexadecimal = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
    demand(hexadecimal, f"meta's weights_sha256 is {digest!r}, not 64 hexadecimal digits")
    return meta


def read_items(path):
    """(id, label) of every item; an item without an id is named by its line number."""
    items = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                item = json.loads(line)
                label = item.get("label")
                items.append((as_text(item.get("id"), str(number)), as_text(label, "")))
    return items


def as_text(value, default):
    if value is None:
        return default
    return value if isinstance(value, str) else json.dumps(value)


def check_items(ids, labels, items):
    demand(len(ids) == len(items), f"{len(ids)} rows, but {len(items)} items")
    for i, (found, expected) in enumerate(zip(zip(ids, labels), items)):
        demand(found == expected, f"row {i} is id, label {found}, the item is {expected}")


def check_scores(file):
    """Checks a causal map: tables [head, lambda, item], as sums and per token. Returns ids, labels and summary."""
    delta = array(file, "delta_logprob", "f32", 3)
    heads, lambdas, n = delta.shape
    table = {"delta_logprob": delta}
    for key in ["delta_logprob_per_token", "kl", "kl_per_token", "agreement"]:
        table[key] = array(file, key, "f32", 3)
        demand(table[key].shape == delta.shape, f"'{key}' has shape {list(table[key].shape)}, not {list(delta.shape)}")
    for key, kind, size in [("tokens", "int", n), ("base_logprob", "f32", n), ("lambda", "f32", lambdas)] + [
        (key, kind, heads) for key, kind in [("head_name", "text"), ("head_layer", "int"), ("head_index", "int")]
    ]:
        table[key] = array(file, key, kind, 1)
        demand(len(table[key]) == size, f"'{key}' has {len(table[key])} entries, not {size}")
    demand((table["tokens"] > 0).all(), "an item has no scored token")
    demand((table["kl"] >= 0).all(), "'kl' is negative")
    demand(((table["agreement"] >= 0) & (table["agreement"] <= 1)).all(), "'agreement' is no share")
    demand((table["base_logprob"] <= 0).all(), "'base_logprob' is positive")
    for key in ["delta_logprob", "kl"]:
        off = numpy.abs(table[key] / table["tokens"] - table[f"{key}_per_token"]).max()
        demand(off <= 1e-6 * max(1.0, numpy.abs(table[key]).max()), f"'{key}_per_token' is off by {off}")
    for i, (name, layer, index) in enumerate(zip(*(table[k].tolist() for k in ("head_name", "head_layer", "head_index")))):
        demand(name in (f"L{layer}H{index}", f"L{layer}V{index}"), f"head {i} is {name}, not of layer {layer}, {index}")
    untouched = table["lambda"] == 1.0
    for key, value in [("delta_logprob", 0.0), ("kl", 0.0), ("agreement", 1.0)]:
        demand((table[key][:, untouched] == value).all(), f"'{key}' is not {value} at lambda 1")
    ids, labels = (rows(array(file, key, "text", 1), n, key).tolist() for key in ("id", "label"))
    meta = check_meta(file, IDENTITY)
    summary = f"{heads} heads, {lambdas} lambda, {n} items, {meta['model']} {meta['dtype']} {meta['device']}"
    return ids, labels, summary


def check(path, items=None):
    """Returns the summary line, or raises Wrong."""
    try:
        file = numpy.load(path, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise Wrong(f"numpy cannot open it: {error}") from None
    demand(isinstance(file, numpy.lib.npyio.NpzFile), "it is no npz archive")
    with file:
        if "delta_logprob" in file:
            ids, labels, summary = check_scores(file)
            if items is not None:
                check_items(ids, labels, read_items(items))
            return summary
        n, d = array(file, "h_last", "f32", 2).shape
        layers = check_layers(file, n, d)
        slots = check_heads(file, n)
        z = check_z(file, n, slots)
        logits = rows(array(file, "logits", "f32", 2), n, "logits").shape[1] if "logits" in file else 0
        ids, labels = (rows(array(file, key, "text", 1), n, key).tolist() for key in ("id", "label"))
        demand(len(set(ids)) == n, "an id stands there twice")
        check_lengths(file, n)
        meta = check_meta(file, META)
        demand("piece" not in meta, "it is a part of a capture that was not finished")
        check_mean(file, n, d, meta)
        columns = check_columns(file, n, meta)
    if items is not None:
        check_items(ids, labels, read_items(items))
    parts = [f"{n} items", f"d_model {d}", f"{layers} layers", f"{len(slots)} slots", f"{z} layers of z"]
    parts += [f"vocabulary {logits}"] if logits else []
    parts += [f"{columns} columns of numbers"] if columns else []
    parts += [f"{len(set(labels))} labels", f"{meta['model']} {meta['dtype']} {meta['device']} {meta['site']}"]
    return ", ".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--items", help="JSONL whose ids and labels the file must hold, in order")
    args = parser.parse_args()
    try:
        print(f"{args.file}: {check(args.file, args.items)}")
    except Wrong as wrong:
        sys.exit(f"{args.file}: {wrong}")


if __name__ == "__main__":
    main()
