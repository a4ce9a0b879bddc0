"""Compares this engine with transformers and llama.cpp: same machine, threads, weights and work, taking turns.

    cargo build --release
    python scripts/bench_peers.py --threads 2 --rounds 3 --models smollm2,qwen3,qwen3.5 --out peers.json
    python scripts/bench_peers.py --quick

Every run is a process of its own; contenders take turns, every second round in reverse. A figure is the median over the
rounds, a ratio the median of the rounds' ratios, followed by the smallest and largest. All read the same token ids;
ours and transformers load one directory, llama.cpp GGUF files of the same weights, made where they are missing. The
machine's own limits are measured in the same turns. Prints Markdown for docs/benchmarks.md, progress on stderr; --out
FILE keeps every measurement as JSON. Exits 1 if a check that all computed the same fails.

  decode1   greedy steps of one row after --prompt-tokens tokens, the median step
  decode16  the same for 16 rows under 16 different plans; transformers by pre-hooks with a λ per row, llama.cpp without
  prefill   one pass of --prefill-tokens tokens that gives the last token's logits
  capture   h_last and a norm per head over the last 32 response tokens of --texts texts; transformers by pre-hooks
  sweep, map  those of bench_sweep.py, which this starts; --sweep-args passes more to it

llama.cpp needs `pip install -r scripts/golden/requirements-llama-cpp.txt`, or is left out by --peers.
"""

import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import types

import bench_sweep
import peer_models
import peer_report
import peers
from peer_llama_cpp import UNABLE
from peers import DTYPES, ROOT, parse_plan, progress, shown

JOBS = ["decode1", "decode16", "prefill", "capture", "sweep", "map"]
ENGINES = ["ours", "transformers", "llama.cpp"]
# Our variants: the dtype of the peers that each is compared with, and its arguments. Variants that the binary does not
# know are left out.
OURS = {
    "f32": ("f32", ["--dtype", "f32"]),
    "bf16": ("bf16", ["--dtype", "bf16"]),
    "bf16, products bf16": ("bf16", ["--dtype", "bf16", "--products", "bf16"]),
    "q8_0": ("q8_0", ["--weights", "q8_0"]),
}
CAPTURE_TOLERANCE = 1e-3  # of the largest value, f32, ours against theirs: SmolLM2's residual stream differs by 2e-5
LAST_N = 32
STRIDE = 7919  # `temper bench` reads the tokens i * 7919 modulo the vocabulary
# What bench_sweep.py measures of each model: minutes, not hours.
SWEEP_ARGS = {
    "smollm2": "--prompts 20 --new-tokens 32 --texts 2 --peer-share 0.08 --loop-cells 24 --skip plain",
    "": "--prompts 4 --new-tokens 16 --texts 1 --map-heads 32 --peer-share 0.5 --loop-cells 8 --skip plain",
}
QUICK = {
    "models": "smollm2",
    "rounds": 1,
    "repeat": 1,
    "prompt_tokens": 16,
    "new_tokens": 4,
    "prefill_tokens": 32,
    "texts": 4,
    "sweep_args": "--prompts 2 --lambdas 1,0 --new-tokens 4 --texts 1 --map-heads 2 --loop-cells 2 --skip plain",
}


# ---------------------------------------------------------------- what is measured


class Bench:
    """One model, and what all its contenders read."""

    def __init__(self, args, name):
        self.args, self.name, self.dir = args, name, peer_models.directory(name)
        self.heads = peer_models.Heads(self.dir)
        self.work = ROOT / "runs/bench_peers" / self.dir.name
        self.work.mkdir(parents=True, exist_ok=True)
        self.left_out, self.llama, self.items = [], {}, None

    def prompt(self, count):
        return [i * STRIDE % self.heads.vocab for i in range(count)]

    def plans(self, job):
        """[[layer, head, λ], ..] of each row. Sixteen rows have the heads of `temper bench --plans 16`; another λ costs
        the same and shows in the answers."""
        if job != "decode16":
            return [parse_plan(self.args.temper)]
        slots = self.heads.all()
        chosen = [slots[i * max(1, len(slots) // 16) % len(slots)] for i in range(16)]
        return [[(*at, i / 16)] for i, at in enumerate(chosen)]

    def spec(self, job, engine, dtype, **rest):
        """The task of a contender, as a file."""
        args = self.args
        prompt = self.prompt(args.prefill_tokens if job == "prefill" else args.prompt_tokens)
        new_tokens = 0 if job in ["prefill", "probe"] else args.new_tokens
        task = {"task": job, "threads": args.threads, "dtype": dtype, "hf_dir": str(self.dir), "prompt": prompt}
        task |= {"plans": self.plans(job), "rows": rows_of(job), "new_tokens": new_tokens, "repeat": args.repeat}
        path = self.work / f"{job}-{engine}-{dtype}.json"
        path.write_text(json.dumps(task | rest))
        return path

    def texts(self):
        """Recorded prompts and responses; also writes them to the file that ours reads."""
        if self.items is None:
            asks = types.SimpleNamespace(model=self.name, threads=self.args.threads)
            self.items = bench_sweep.Model(asks).recorded(self.args.texts)
            bench_sweep.write_items(self.work / "items.jsonl", self.items)
        return self.items


def rows_of(job):
    return 16 if job == "decode16" else 1


def steps_entry(found, steps, rows):
    speeds = [1000 * rows / ms for ms in steps]
    return {"speeds": speeds, "load_s": found["load_s"], "weights_mb": found["weights_mb"]}


def check_threads(command, found, args):
    if found["threads"] != args.threads:
        sys.exit(f"{peers.typed(command)}\nran on {found['threads']} threads, not {args.threads}")


# ---------------------------------------------------------------- contenders: name of each measurement -> its entry


def temper(bench, verb, extra, *rest):
    return [bench.args.temper_bin, verb, "--model", bench.dir, "--threads", bench.args.threads, *extra, *rest]


def ours(bench, job, name):
    args, (_, extra) = bench.args, OURS[name]
    if job["job"] == "capture":
        return ours_capture(bench, job, name)
    prefill = job["job"] == "prefill"
    sizes = ["--prompt-tokens", args.prefill_tokens if prefill else args.prompt_tokens]
    sizes += ["--new-tokens", 1 if prefill else args.new_tokens, "--rows", rows_of(job["job"])]
    plan = ["--plans", 16] if job["job"] == "decode16" else ["--plan", args.temper] if args.temper else []
    command = temper(bench, "bench", extra, *sizes, "--repeat", args.repeat if prefill else 1, *plan, "--json")
    job.setdefault("command", peers.typed(command))
    run = peers.run(command, args.threads)
    found = run.json()
    check_threads(command, found, args)
    if prefill:
        assert found["prefill"]["tokens"] == args.prefill_tokens
        entry = steps_entry(found, [], 1) | {"speeds": found["prefill"]["tokens_per_s"]}
    else:
        [decoded] = found["decode"]
        told = decoded["rows"], decoded.get("plans", 0), len(decoded["step_ms"])
        wanted = rows_of(job["job"]), 16 if job["job"] == "decode16" else bool(args.temper), args.new_tokens
        if told != wanted:
            sys.exit(f"{peers.typed(command)}\nmeasured (rows, plans, steps) {told}, not {wanted}")
        entry = steps_entry(found, decoded["step_ms"], decoded["rows"])
    return {f"ours {name}": entry | run.machine()}


def ours_capture(bench, job, name):
    bench.texts()
    out = bench.work / f"capture-ours-{name.replace(', ', '-').replace(' ', '-')}.npz"
    items = ["--items", bench.work / "items.jsonl", "--heads", "norm", "--last-n", LAST_N]
    command = temper(bench, "capture", OURS[name][1], *items, "--out", out)
    job.setdefault("command", peers.typed(command))
    run = peers.run(command, bench.args.threads)
    begin = next((at for at, line in run.lines if " to do" in line), None)
    if begin is None:
        sys.exit(f"{peers.typed(command)}\ntold no stage, so its work cannot be told from its load")
    job["features"][f"ours {name}"] = str(out)
    return {f"ours {name}": capture_entry(bench, run, run.wall_s, run.wall_s - begin)}


def capture_entry(bench, run, whole_s, work_s):
    tokens = sum(len(item["input_ids"]) for item in bench.texts())
    times = {"whole_s": whole_s, "work_s": work_s, "load_s": whole_s - work_s, "speeds": [tokens / work_s]}
    return times | run.machine()


def transformers(bench, job, dtype):
    rest = {}
    variants = ["batched", "loop"] if job["job"] == "capture" else [None]
    found = {}
    for variant in variants:
        if variant:
            out = bench.work / f"capture-transformers-{dtype}-{variant}.npz"
            rest = {"items": bench.texts(), "variant": variant, "last_n": LAST_N, "out": str(out)}
        spec = bench.spec(job["job"], "transformers", dtype, **rest)
        command = [sys.executable, ROOT / "scripts/peer_transformers.py", spec]
        run = peers.run(command, bench.args.threads)
        told = run.json()
        check_threads(command, told, bench.args)
        found |= transformers_entries(bench, job, dtype, variant, run, told, rest)
    return found


def transformers_entries(bench, job, dtype, variant, run, told, rest):
    if variant:
        name = f"transformers {dtype}, {'hooks on batches' if variant == 'batched' else 'hooks one by one'}"
        job["features"][name] = rest["out"]
        entry = capture_entry(bench, run, run.wall_s - told["untimed_s"], told["work_s"])
        return {name: entry | {"weights_mb": told["weights_mb"], "batch": told["rows"]}}
    job["answers"][f"transformers {dtype}"] = told["answers"]
    if job["job"] == "prefill":
        return {f"transformers {dtype}": steps_entry(told, [], 1) | {"speeds": told["tokens_per_s"]} | run.machine()}
    entries = {way: steps_entry(told, steps, rows_of(job["job"])) for way, steps in told["step_ms"].items()}
    return {f"transformers {dtype}, {way}": entry | run.machine() for way, entry in entries.items()}


def llama_cpp(bench, job, kind):
    spec = bench.spec(job["job"], "llama.cpp", kind, gguf=str(bench.llama[kind]))
    command = [sys.executable, ROOT / "scripts/peer_llama_cpp.py", spec]
    run = peers.run(command, bench.args.threads)
    told = run.json()
    check_threads(command, told, bench.args)
    job["answers"][f"llama.cpp {kind}"] = told["answers"]
    entry = steps_entry(told, told.get("step_ms", []), rows_of(job["job"]))
    if job["job"] == "prefill":
        entry["speeds"] = told["tokens_per_s"]
    return {f"llama.cpp {kind}": entry | run.machine()}


def limits(bench, job):
    """Measures the machine's own limits, in the same turns."""
    found = peers.run([sys.executable, ROOT / "scripts/peer_limits.py", bench.args.threads], bench.args.threads).json()
    job["limits"].append(found)
    progress(", ".join(f"{key} {value:.1f}" for key, value in found.items()))


def find_llama(bench, about):
    """Makes the GGUF files, and asks this llama.cpp whether it runs each of them."""
    for kind in bench.args.llama_types:
        gguf = peer_models.gguf(bench.dir, kind)
        spec = bench.spec("probe", "llama.cpp", kind, gguf=str(gguf))
        run = peers.run([sys.executable, ROOT / "scripts/peer_llama_cpp.py", spec], bench.args.threads, (0, UNABLE))
        if run.status == 0:
            bench.llama[kind] = gguf
            found = run.json()
            about["llama.cpp"] = {key: found[key] for key in ["version", "system"]}
        else:
            reasons = [line for _, line in run.lines if "error" in line.lower()] or [run.lines[-1][1]]
            bench.left_out.append(f"llama.cpp {kind} on {bench.dir.name}: {reasons[0].strip()}")


def contenders(bench, job):
    """Functions in the order of their turns; each runs a process and returns entries by name."""
    args, found = bench.args, []
    if "ours" in args.peers:
        found += [lambda name=name: ours(bench, job, name) for name in args.variants]
    if "transformers" in args.peers:
        found += [lambda dtype=dtype: transformers(bench, job, dtype) for dtype in args.dtypes]
    if bench.llama and job["job"] == "capture":
        job["notes"].append("llama.cpp is left out: it has no hooks at heads")
    else:
        found += [lambda kind=kind: llama_cpp(bench, job, kind) for kind in bench.llama]
    return found


# ---------------------------------------------------------------- rounds and checks


def run_job(bench, name):
    args = bench.args
    job = {"job": name, "model": bench.dir.name, "runs": {}, "limits": [], "checks": [], "notes": []}
    job |= {"answers": {}, "features": {}, "work": work_of(bench, name)}
    if args.temper and name in ["decode1", "prefill"]:
        job["notes"].append(f"ours and transformers under {args.temper}, llama.cpp untouched")
    turns = contenders(bench, job)
    for turn in range(1, args.rounds + 1):
        limits(bench, job)
        for contender in turns if turn % 2 else reversed(turns):
            peers.wait_for_quiet(args.wait_quiet)
            for who, entry in contender().items():
                entry["speed"] = statistics.median(entry["speeds"])
                job["runs"].setdefault(who, []).append(entry | {"round": turn})
                progress(
                    f"{bench.dir.name} {name} round {turn}/{args.rounds} {who}: {entry['speed']:.1f} tokens/s, "
                    f"load {entry['load_before']:.2f}"
                )
    job["runs"] = dict(sorted(job["runs"].items(), key=lambda item: peer_report.place(item[0])))
    check(bench, job)
    return job


def work_of(bench, name):
    args = bench.args
    if name == "capture":
        texts = bench.texts()
        lengths = peers.spread([len(text["input_ids"]) for text in texts], 0)
        return f"{len(texts)} texts of {lengths} tokens, {sum(len(t['input_ids']) for t in texts)} in all"
    if name == "prefill":
        return f"{args.prefill_tokens} tokens, {args.repeat} times a round after one to warm up"
    plans = " under 16 plans" if name == "decode16" else ""
    return f"{args.new_tokens} steps of {rows_of(name)} row(s){plans} after {args.prompt_tokens} tokens"


def check(bench, job):
    """Checks that the contenders computed the same. For types that round otherwise the result is only told."""
    if job["job"] == "capture":
        return check_features(job)
    if "ours" not in bench.args.peers or job["job"] == "prefill" or "f32" not in bench.args.variants:
        return None
    mine = our_answers(bench, job)
    for who, answers in job["answers"].items():
        if job["job"] == "decode1" or who.startswith("transformers"):
            exact = who == "transformers f32"
            bench_sweep.compare_answers(job, f"ours f32 and {who}", mine, answers, exact)
    if job["job"] == "decode16":
        job["notes"].append(f"{len(set(map(tuple, mine)))} different answers among our 16 plans")
    return None


def our_answers(bench, job):
    """What `temper generate` answers in f32 to the job's prompt under its plans; `temper bench` reports no tokens."""
    import numpy

    args, plans = bench.args, bench.plans(job["job"])
    prompt = bench.prompt(args.prompt_tokens)
    items = bench_sweep.write_items(bench.work / "prompt.jsonl", [{"input_ids": prompt}] * len(plans))
    factors = numpy.ones((len(plans), bench.heads.layers, max(bench.heads.counts)), numpy.float32)
    for row, plan in enumerate(plans):
        for layer, head, factor in plan:
            factors[row, layer, head] = factor
    numpy.savez(bench.work / "lambda.npz", **{"lambda": factors})
    rest = ["--items", items, "--max-rows", len(plans), "--max-new-tokens", args.new_tokens + 1, "--ignore-eos"]
    rest += ["--plan", bench.work / "lambda.npz"] if any(plans) else []
    run = peers.run(temper(bench, "generate", OURS["f32"][1], *rest), args.threads)
    rows = {int(row["id"]): row["response_ids"] for row in map(json.loads, run.stdout.splitlines())}
    return [rows[i] for i in range(len(plans))]


def check_features(job):
    import numpy

    base = job["features"].get("ours f32")
    for who, path in job["features"].items():
        if base and who.startswith("transformers"):
            with numpy.load(base) as some, numpy.load(path) as others:
                pairs = {key: (some[key], others[key]) for key in ["h_last", "head_norm"]}
            worst = {key: float(abs(a - b).max() / abs(b).max()) for key, (a, b) in pairs.items()}
            exact = "f32" in who
            told = ", ".join(f"{key} {value:.1e}" for key, value in worst.items())
            limit = f"(at most {CAPTURE_TOLERANCE})" if exact else "(told only)"
            what = f"ours f32 and {who}: worst difference as a share of the largest value {told} {limit}"
            bench_sweep.check(job, what, max(worst.values()) <= CAPTURE_TOLERANCE if exact else None)


# ---------------------------------------------------------------- sweep and map


def run_sweeps(bench, jobs):
    """The tables of bench_sweep.py for each of our variants that transformers has a dtype for."""
    args, found = bench.args, []
    more = args.sweep_args if args.sweep_args is not None else SWEEP_ARGS.get(bench.name, SWEEP_ARGS[""])
    for name in [name for name in args.sweep_variants if name in args.variants]:
        dtype, extra = OURS[name]
        out = bench.work / "sweep.json"
        command = [sys.executable, ROOT / "scripts/bench_sweep.py", "--jobs", ",".join(jobs), "--model", bench.name]
        command += ["--dtypes", dtype, "--threads", args.threads, "--rounds", args.rounds, "--out", out]
        command += ["--temper-bin", args.temper_bin, "--wait-quiet", args.wait_quiet, *shlex.split(more)]
        command += [f"--temper-args={shlex.join(extra[2:])}"] if extra[2:] else []
        command = [str(part) for part in command]
        out.unlink(missing_ok=True)
        status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        if status not in (0, 1) or not out.exists():
            sys.exit(f"{peers.typed(command)}\nended with {status}")
        found += [job | {"variant": name} for job in json.loads(out.read_text())["jobs"]]
    return found


# ---------------------------------------------------------------- command line


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", default="smollm2", help="smollm2, qwen3, qwen3.5 (random weights), or directories; comma-separated")
    add("--jobs", default=",".join(JOBS), help=f"default: {','.join(JOBS)}")
    add("--peers", default=",".join(ENGINES), help=f"default: {','.join(ENGINES)}")
    add("--temper-bin", type=pathlib.Path, default=ROOT / "target/release/temper", metavar="FILE")
    add("--variants", default=";".join(OURS), help=f"of ours, separated by semicolons (default: {'; '.join(OURS)})")
    add("--dtypes", default="f32,bf16", help="of transformers (default: f32,bf16)")
    add("--llama-types", default="f32,bf16,q8_0", help="of llama.cpp's files (default: f32,bf16,q8_0)")
    add("--threads", type=int, default=os.cpu_count())
    add("--rounds", type=int, default=3)
    add("--repeat", type=int, default=3, help="prefills within a round (default: 3)")
    add("--prompt-tokens", type=int, default=256, help="before decoding (default: 256)")
    add("--new-tokens", type=int, default=32, help="decode steps (default: 32)")
    add("--prefill-tokens", type=int, default=512, help="of prefill (default: 512)")
    add("--texts", type=int, default=100, help="of capture (default: 100)")
    add("--temper", metavar="PLAN", help="decode1 and prefill under a plan, e.g. L0H4:0.5,L5H2:0.5")
    add("--sweep-variants", default="f32;bf16", help="of ours in sweep and map (default: f32;bf16)")
    add("--sweep-args", metavar="ARGS", help="sizes for bench_sweep.py in one string, instead of each model's own")
    add("--wait-quiet", type=float, default=0, metavar="SECONDS", help="before each run, wait for idle cores this long")
    add("--quick", action="store_true", help="tiny sizes, to see that all of it works")
    add("--out", type=pathlib.Path, metavar="FILE", help="keep every measurement as JSON")
    if "--quick" in sys.argv[1:]:
        parser.set_defaults(**QUICK)
    args = parser.parse_args()
    transformers_runs = [name for name, (dtype, _) in OURS.items() if dtype in DTYPES]
    known = {"jobs": (",", JOBS), "peers": (",", ENGINES), "variants": (";", list(OURS)), "dtypes": (",", list(DTYPES))}
    known |= {"llama_types": (",", ["f32", "f16", "bf16", "q8_0"]), "sweep_variants": (";", transformers_runs)}
    for option, (separator, allowed) in known.items():
        given = [name.strip() for name in getattr(args, option).split(separator) if name.strip()]
        setattr(args, option, given)
        for name in given:
            if name not in allowed:
                parser.error(f"--{option.replace('_', '-')} has '{name}', which is none of: {'; '.join(allowed)}")
    if min(args.rounds, args.repeat, args.new_tokens, args.prompt_tokens, args.prefill_tokens, args.texts) < 1:
        parser.error("rounds, repeats, tokens and texts are at least 1")
    if args.temper is not None and not parse_plan(args.temper):
        parser.error("--temper names no head")
    return args


def prepare(args):
    """Checks packages and binary before hours are spent. Returns a line for each variant that the binary lacks."""
    peers.require("torch", "transformers", "numpy", "safetensors")
    if "llama.cpp" in args.peers:
        peers.require("llama_cpp", file="scripts/golden/requirements-llama-cpp.txt")
        peers.require("gguf")
    left_out = []
    if "ours" in args.peers:
        peers.check_binary(args.temper_bin)
        told = subprocess.run([args.temper_bin, "bench", "--help"], capture_output=True, text=True, check=True).stdout
        for name in list(args.variants):
            option = shlex.join(OURS[name][1][-2:])
            if not all(part in told for part in OURS[name][1]):
                args.variants.remove(name)
                left_out.append(f"ours {name}: this binary's `temper bench` has no {option}")
    return left_out


def main():
    args = parse_arguments()
    left_out = prepare(args)
    about, jobs = peer_report.head(args), []
    about |= {"left_out": left_out}
    for name in args.models.split(","):
        bench = Bench(args, name)
        if "llama.cpp" in args.peers:
            find_llama(bench, about)
        left_out += bench.left_out
        for line in left_out:
            progress(f"left out: {line}")
        for job in [job for job in args.jobs if job not in ["sweep", "map"]]:
            jobs.append(run_job(bench, job))
            keep(args, about, jobs)
        sweeps = [job for job in args.jobs if job in ["sweep", "map"]]
        if sweeps and {"ours", "transformers"} <= set(args.peers):
            jobs += run_sweeps(bench, sweeps)
            keep(args, about, jobs)
    print(peer_report.report(about, jobs))
    if any(c["holds"] is False for job in jobs for c in job["checks"]):
        progress("a check failed")
        sys.exit(1)


def keep(args, about, jobs):
    """Writes the results after every job, so that a later failure does not lose hours."""
    if args.out:
        args.out.write_text(json.dumps(about | {"jobs": jobs}, indent=1) + "\n")
        progress(f"kept {shown(args.out)}")


if __name__ == "__main__":
    main()
