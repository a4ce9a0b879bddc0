"""Compares this engine with transformers: same machine, same weights, same type, same threads, taking turns.

    cargo build --release
    python scripts/bench_peers.py --threads 2 --rounds 3 --temper L0H4:0.5,L5H2:0.5,L12H7:0.5,L20H0:0.5,L28H8:0.5

Every round runs `temper bench` and then transformers (SDPA attention, DynamicCache, generate()), each in a process of
its own, so that both meet the same neighbours. Both load one Hugging Face directory; --model-gguf is converted to it
first, and for --gguf-dtypes the engine runs from the GGUF file itself too. A figure is the median over all rounds, a
ratio the median of the rounds' ratios, with the smallest and the largest behind it. Prints Markdown for
docs/benchmarks.md, progress on stderr; --out FILE keeps every single measurement as JSON.

Prefill: one forward pass of --prompt-tokens tokens of one row that gives the last token's logits. Decode: the median
single step of --new-tokens after such a prompt, for each number of --rows at once; tokens/s are rows / step. With
--temper everything is measured a second time under that plan (a scale on the columns of the output projection's input).
"""

import argparse
import datetime
import json
import os
import pathlib
import resource
import shlex
import statistics
import sys
import time

import peers
from peers import DTYPES, ROOT, RSS_UNIT, numbers, parse_plan, progress, require, shown, spread, table


# ---------------------------------------------------------------- transformers, in a process of its own


def temper(model, entries):
    """Scales z where the output projection reads it."""
    layers, heads = model.model.layers, model.config.num_attention_heads
    for layer, head, factor in entries:
        if layer >= len(layers) or head >= heads:
            sys.exit(f"--temper: the model has no L{layer}H{head}")
    for layer in {layer for layer, _, _ in entries}:
        module = layers[layer].self_attn.o_proj
        dim = module.in_features // heads
        scale = module.weight.new_ones(module.in_features)
        for _, head, factor in filter(lambda entry: entry[0] == layer, entries):
            scale[head * dim : (head + 1) * dim] = factor
        module.register_forward_pre_hook(lambda _, args, scale=scale: (args[0] * scale,))


def run_transformers(args):
    """What `temper bench --json` measures, and prints it in the same form."""
    import torch
    from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

    torch.set_num_threads(args.threads)

    class Stamps(StoppingCriteria):
        """Never stops; notes the time of every token."""

        def __init__(self):
            self.times = []

        def __call__(self, input_ids, scores, **_):
            self.times.append(time.perf_counter())
            return torch.zeros(input_ids.shape[0], dtype=torch.bool)

    start = time.perf_counter()
    dtype = getattr(torch, DTYPES[args.dtypes])
    model = AutoModelForCausalLM.from_pretrained(args.hf_dir, dtype=dtype, attn_implementation="sdpa").eval()
    load_s = time.perf_counter() - start
    temper(model, parse_plan(args.temper))
    model.generation_config.eos_token_id = None
    vocab = model.config.vocab_size

    def prompt(rows):
        random = torch.Generator().manual_seed(0)
        return torch.randint(vocab // 100, vocab, (rows, args.prompt_tokens), generator=random)

    prefill, decode = [], []
    with torch.inference_mode():
        ids = prompt(1)
        model(input_ids=ids, use_cache=True, logits_to_keep=1)  # warms up
        for _ in range(args.repeat):
            start = time.perf_counter()
            model(input_ids=ids, use_cache=True, logits_to_keep=1)
            prefill.append(args.prompt_tokens / (time.perf_counter() - start))
    for rows in args.rows:
        ids, steps = prompt(rows), []
        for _ in range(args.repeat):
            stamps = Stamps()
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=args.new_tokens + 1,  # the first comes from the prefill
                do_sample=False,
                pad_token_id=0,
                stopping_criteria=StoppingCriteriaList([stamps]),
            )
            steps += [1000 * (b - a) for a, b in zip(stamps.times, stamps.times[1:])]
        assert len(steps) == args.repeat * args.new_tokens
        decode.append({"rows": rows, "step_ms": steps, "tokens_per_s": 1000 * rows / statistics.median(steps)})
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    result = {
        "model": args.hf_dir.name,
        "dtype": args.dtypes,
        "threads": torch.get_num_threads(),
        "load_s": load_s,
        "prefill": {"tokens": args.prompt_tokens, "tokens_per_s": prefill},
        "decode": decode,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e6,
        "weights_mb": weights / 1e6,
    }
    print(json.dumps(result))


# ---------------------------------------------------------------- rounds


def measure(command, threads):
    """Runs one contender: what it prints, the load average before it, and the cores that others used meanwhile."""
    found = peers.run(command, threads)
    machine = found.machine()
    del machine["peak_rss_mb"]  # it tells its own
    return found.json() | machine


def ours(args, model, dtype, plan):
    command = [args.temper_bin, "bench", "--model", model, "--dtype", dtype, "--threads", args.threads]
    command += ["--prompt-tokens", args.prompt_tokens, "--new-tokens", args.new_tokens]
    command += ["--rows", ",".join(map(str, args.rows)), "--repeat", args.repeat, "--json"]
    return [str(part) for part in command + (["--plan", plan] if plan else [])]


def theirs(args, dtype, plan):
    command = [sys.executable, __file__, "--only-transformers", "--hf-dir", args.hf_dir, "--dtypes", dtype]
    command += ["--threads", args.threads, "--prompt-tokens", args.prompt_tokens, "--new-tokens", args.new_tokens]
    command += ["--rows", ",".join(map(str, args.rows)), "--repeat", args.repeat]
    return [str(part) for part in command + (["--temper", plan] if plan else [])]


def contenders(args, dtype, plan):
    """Name -> command, in the order of their turns."""
    found = {"temper": ours(args, args.hf_dir, dtype, plan)}
    if args.model_gguf and dtype in args.gguf_dtypes:
        found["temper, GGUF"] = ours(args, args.model_gguf, dtype, plan)
    found["transformers"] = theirs(args, dtype, plan)
    return found


def run_rounds(args):
    """[{dtype, plan, runs: name -> [result a round]}] of every dtype, untouched and tempered."""
    configurations = []
    for dtype in args.dtypes.split(","):
        for plan in [None, args.temper] if args.temper else [None]:
            runs = {name: [] for name in contenders(args, dtype, plan)}
            for turn in range(1, args.rounds + 1):
                for name, command in contenders(args, dtype, plan).items():
                    peers.wait_for_quiet(args.wait_quiet)
                    result = measure(command, args.threads)
                    check_result(name, result, dtype, args)
                    runs[name].append(result)
                    decode = ", ".join(f"{d['tokens_per_s']:.1f} ({d['rows']})" for d in result["decode"])
                    tempered = ", tempered" if plan else ""
                    progress(
                        f"{dtype}{tempered} round {turn}/{args.rounds} {name}: prefill "
                        f"{statistics.median(result['prefill']['tokens_per_s']):.0f}, decode {decode} tokens/s; "
                        f"load {result['load_before']:.2f}"
                    )
            configurations.append({"dtype": dtype, "plan": plan, "runs": runs})
    return configurations


def check_result(name, result, dtype, args):
    """That both measured the same thing: a bench that quietly ran something else would be a false result."""
    rows = [entry["rows"] for entry in result["decode"]]
    measured = {
        "dtype": (result["dtype"].lower(), dtype),
        "threads": (result["threads"], args.threads),
        "prompt tokens": (result["prefill"]["tokens"], args.prompt_tokens),
        "rows": (rows, args.rows),
    }
    for what, (found, asked) in measured.items():
        if found != asked:
            sys.exit(f"{name} measured with {what} {found}, not {asked}")


# ---------------------------------------------------------------- tables


def measurements(result):
    """What is measured -> single measurements in tokens/s, of one run."""
    found = {f"prefill, {result['prefill']['tokens']} tokens": result["prefill"]["tokens_per_s"]}
    for entry in result["decode"]:
        rows = entry["rows"]
        found[f"decode, {rows} row{'s' if rows > 1 else ''}"] = [1000 * rows / ms for ms in entry["step_ms"]]
    return found


def count_heads(plan):
    return len(parse_plan(plan))


def speed_table(configurations):
    lines = [["dtype", "heads tempered", "what", "contender", "tokens/s", "ratio to theirs", "load", "others' cores"]]
    for c in configurations:
        rounds = {name: [measurements(result) for result in results] for name, results in c["runs"].items()}
        for what in rounds["transformers"][0]:
            for name, runs in rounds.items():
                speed = statistics.median([x for run in runs for x in run[what]])
                ratio = "1"
                if name != "transformers":
                    pairs = zip(runs, rounds["transformers"])
                    ratios = [statistics.median(a[what]) / statistics.median(b[what]) for a, b in pairs]
                    ratio = f"**{statistics.median(ratios):.2f}** ({spread(ratios, 2)})"
                results = c["runs"][name]
                others = [r["others_cores"] for r in results if "others_cores" in r]
                cells = [c["dtype"], str(count_heads(c["plan"])), what, name, f"{speed:.1f}", ratio]
                cells += [spread([r["load_before"] for r in results], 1), spread(others, 2) if others else "unknown"]
                lines.append(cells)
    return table(lines)


def memory_table(configurations):
    lines = [["dtype", "contender", "load, s", "weights, MB", "peak memory, MB"]]
    for c in (c for c in configurations if not c["plan"]):
        for name, results in c["runs"].items():
            digits = {"load_s": 2, "weights_mb": 0, "peak_rss_mb": 0}
            cells = [f"{statistics.median([r[key] for r in results]):.{n}f}" for key, n in digits.items()]
            lines.append([c["dtype"], name, *cells])
    return table(lines)


def report(args, configurations):
    from importlib.metadata import version

    command = peers.typed(["python", "scripts/bench_peers.py", *sys.argv[1:]])
    single = ours(args, args.hf_dir, args.dtypes.split(",")[0], None)
    single[0], single[3] = str(shown(args.temper_bin)), str(shown(args.hf_dir))
    steps = f"{args.rounds} rounds in turns, {args.repeat} repeats each, {args.new_tokens} steps a repeat"
    return "\n".join(
        [
            f"{datetime.date.today()}, {peers.cpu_model()}, {os.cpu_count()} logical cores, {args.threads} threads; "
            f"torch {version('torch')}, transformers {version('transformers')}; {steps}.",
            "",
            "```",
            command,
            "```",
            "",
            f"Ours, once a round: `{shlex.join(single)}`",
            "",
            speed_table(configurations),
            "",
            "Load is the machine's load average before each run, others' cores what other processes used during it.",
            "",
            memory_table(configurations),
        ]
    )


# ---------------------------------------------------------------- command line


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model-gguf", type=pathlib.Path, metavar="FILE", help=f"default: {shown(peers.GGUF)}, where there is no --hf-dir")
    add("--hf-dir", type=pathlib.Path, metavar="DIR", help="what both load; default: models/smollm2-135m, made from it")
    add("--temper-bin", type=pathlib.Path, default=ROOT / "target/release/temper", metavar="FILE")
    add("--dtypes", default="f32,bf16", help="comma-separated: f32, bf16, f16 (default: f32,bf16)")
    add("--gguf-dtypes", default="f32", help="dtypes for which ours is run from the GGUF too (default: f32)")
    add("--threads", type=int, default=os.cpu_count())
    add("--rounds", type=int, default=3)
    add("--repeat", type=int, default=3, help="measurements within a round (default: 3)")
    add("--prompt-tokens", type=int, default=256)
    add("--new-tokens", type=int, default=64)
    add("--rows", type=numbers, default=[1, 16], help="rows decoded at once (default: 1,16)")
    add("--temper", metavar="PLAN", help="measure again with these heads tempered, e.g. L0H4:0.5,L5H2:0.5")
    add("--wait-quiet", type=float, default=0, metavar="SECONDS", help="before each run, wait for idle cores this long")
    add("--out", type=pathlib.Path, metavar="FILE", help="keep every measurement as JSON")
    add("--only-transformers", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.gguf_dtypes = [x for x in args.gguf_dtypes.split(",") if x]
    for dtype in args.dtypes.split(",") + args.gguf_dtypes:
        if dtype not in DTYPES:
            parser.error(f"dtype '{dtype}' is none of {', '.join(DTYPES)}")
    if args.rounds < 1 or args.repeat < 1:
        parser.error("--rounds and --repeat are at least 1")
    if args.temper is not None and not parse_plan(args.temper):
        parser.error("--temper names no head")
    if args.model_gguf is None and args.hf_dir is None:
        args.model_gguf = peers.GGUF
    return args


def prepare(args):
    """Makes sure that the models and the binary are there before hours are spent."""
    if args.model_gguf and not args.model_gguf.exists():
        sys.exit(f"there is no {args.model_gguf}\nhint: --model-gguf FILE or --hf-dir DIR names a model")
    if args.hf_dir is None:
        args.hf_dir = peers.convert_smollm2(args.model_gguf)
    peers.check_model_dir(args.hf_dir)
    peers.check_binary(args.temper_bin)


def main():
    args = parse_arguments()
    require("torch", "transformers")
    if args.only_transformers:
        return run_transformers(args)
    prepare(args)
    configurations = run_rounds(args)
    if args.out:
        args.out.write_text(json.dumps(configurations, indent=1) + "\n")
    print(report(args, configurations))


if __name__ == "__main__":
    main()
