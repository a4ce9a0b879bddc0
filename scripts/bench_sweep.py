"""Compares λ sweeps and the causal map with transformers and forward hooks: whole commands, same work, taking turns.

    cargo build --release
    python scripts/bench_sweep.py --jobs sweep,sweep16,map,plans --threads 2 --rounds 3 --out sweep.json

Both sides load one Hugging Face directory and read the same token ids, in the same dtype, on as many threads. Each
contender is a process of its own; they take turns, every second round in reverse. A figure is the median over the
rounds, a ratio the median of the rounds' ratios, followed by the smallest and largest. Prints Markdown for
docs/benchmarks.md, progress on stderr; --out FILE keeps every measurement as JSON. Exits 1 where answers differ.

  sweep    prompts x λ of one head set, greedy, answers of equal length; against hooks one prompt at a time, hooks on
           one batch per λ, and hooks on a single batch in which each row has its own λ
  sweep16  the same with 16 plans (4 head sets x 4 λ), 5 prompts
  map      temper score: every head x λ on recorded responses; against hooks on batches (of the size that calibration
           finds fastest) and one by one. --peer-share and --loop-cells measure a part of these and scale it up
  plans    temper generate: the same rows under 0, 1, 16 and 256 different plans of 5 random heads, and 0 once more

Whole: from the start of the process to its end, without the peers' warm-up and calibration. Load: all that is not work,
imports included. Work, ours: from the progress line that begins the stage to the end; peers: generate() or scoring.
"""

import argparse
import json
import os
import pathlib
import random
import shlex
import shutil
import subprocess
import sys

import bench_report
import peer_models
import peers
from bench_report import BATCH, BATCHED, LOOP, OURS, PLAIN, ROWS, case
from peers import DTYPES, ROOT, numbers, progress, shown, spread

VARIANTS = {LOOP: "loop", BATCH: "batch", ROWS: "rows", BATCHED: "batched"}
# In f32, greedy answers part only at near-ties. No short answer did; how often full-size ones do is not measured yet.
EQUAL_ANSWERS = 0.9
# Nats per response token, f32, ours against theirs. For comparison, hooks against edited weights and eager attention,
# both in transformers: 3.0e-6 on the tiny Llama (96 cells), 1.1e-6 on SmolLM2 (8 cells).
MAP_TOLERANCE = 1e-4
TELLING_TOKENS = 32  # shorter answers may well be the same under every plan
SEED = 0
QUICK = {
    "model": "tests/golden/llama",
    "rounds": 1,
    "prompts": 3,
    "lambdas": [1.0, 0.0],
    "new_tokens": 6,
    "texts": 2,
    "loop_cells": 6,
    "plan_rows": 8,
    "plan_counts": [0, 1, 4, 8],
}


# ---------------------------------------------------------------- the model and what it reads


class Model:
    """A directory that both sides load, and token ids for it."""

    def __init__(self, args):
        self.args, self.texts, self.made = args, None, {}
        self.dir = peer_models.directory(args.model)
        if args.model == "smollm2":
            lines = (ROOT / "configs/data/questions.jsonl").read_text().splitlines()
            self.texts = [json.loads(line)["prompt"] for line in lines]
        self.heads = peer_models.Heads(self.dir)
        self.layers, self.vocab = self.heads.layers, self.heads.vocab

    def work_dir(self, job):
        path = ROOT / "runs/bench_sweep" / f"{self.dir.name}-{job}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def spec_file(self, spec):
        """A task for peer_hooks.py, on this model."""
        common = {"hf_dir": str(self.dir), "threads": self.args.threads, "dtype": "f32"}
        name = "-".join(spec[key] for key in ["task", "variant", "dtype"] if key in spec) + ".json"
        path = self.work_dir("specs") / name
        path.write_text(json.dumps(common | spec))
        return path

    def ask(self, spec):
        """Runs a task that is not measured."""
        return peers.run(theirs(self.spec_file(spec)), self.args.threads).json()

    def prompts(self, count):
        """Prompts of different lengths: questions if the model was trained, random tokens if it was not."""
        if self.texts:
            step = max(1, len(self.texts) // count)
            return self.ask({"task": "prompts", "texts": self.texts[::step][:count]})["prompts"]
        dice = random.Random(SEED)
        lengths = [24 + (7 * i) % 24 for i in range(count)]
        return [[dice.randrange(self.vocab // 100, self.vocab) for _ in range(length)] for length in lengths]

    def recorded(self, count):
        """Prompts with responses of 32 tokens and more, greedy ones if the model was trained; the same every time."""
        if count not in self.made:
            self.made[count] = self.record(count)
        return self.made[count]

    def record(self, count):
        prompts, lengths = self.prompts(count), [32 + (6 * i) % 48 for i in range(count)]
        if self.texts:
            answers = self.ask({"task": "responses", "prompts": prompts, "lengths": lengths})["responses"]
        else:
            dice = random.Random(SEED + 1)
            answers = [[dice.randrange(self.vocab) for _ in range(length)] for length in lengths]
        return [{"input_ids": p + a, "prompt_len": len(p)} for p, a in zip(prompts, answers)]

    def head_set(self, index):
        """Five heads spread over the depth of the model; a different set for each index."""
        layers = sorted({round(i * (self.layers - 1) / 4) for i in range(5)})
        return [(layer, (3 * layer + 4 + index) % self.heads.counts[layer]) for layer in layers]


def write_items(path, items):
    path.write_text("".join(json.dumps({"id": f"{i}"} | item) + "\n" for i, item in enumerate(items)))
    return path


# ---------------------------------------------------------------- runs


def theirs(spec):
    return [sys.executable, ROOT / "scripts/peer_hooks.py", spec]


def ours(args, verb, model, dtype, *rest):
    command = [args.temper_bin, verb, "--model", model.dir, "--dtype", dtype, "--threads", args.threads]
    return [*command, *shlex.split(args.temper_args), *rest]


def has(args, verb, option=None):
    """Whether this binary has a verb, and an option of it."""
    done = subprocess.run([args.temper_bin, verb, "--help"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and (option is None or option in done.stdout)


def exact_length(args, verb, job):
    """The flag that makes answers full-length; adds a note where this binary has none."""
    if has(args, verb, "--ignore-eos"):
        return ["--ignore-eos"]
    job["notes"].append(f"this `temper {verb}` has no --ignore-eos: our answers may end early, so times are a token")
    return []


def work_of(args, model, dtype, job, run):
    """Seconds from the progress line that begins the stage to the end of the process. Where a command prints none, the
    whole time less the load time that `temper bench` reports."""
    begin = next((at for at, line in run.lines if " to do" in line), None)
    if begin is None:
        note = "our load is that of `temper bench`, since the command told no progress"
        if note not in job["notes"]:
            job["notes"].append(note)
        tiny = ["--prompt-tokens", 1, "--new-tokens", 1, "--rows", 1, "--repeat", 1, "--json"]
        begin = peers.run(ours(args, "bench", model, dtype, *tiny), args.threads).json()["load_s"]
    return run.wall_s - begin


def record(run, work_s, tokens, whole_s=None):
    whole_s = whole_s or run.wall_s
    times = {"whole_s": whole_s, "load_s": whole_s - work_s, "work_s": work_s, "tokens": tokens}
    return times | run.machine()


def run_theirs(args, spec):
    """Runs a peer. Returns the run, what it found, and its seconds without warm-up and calibration."""
    run = peers.run(theirs(spec), args.threads)
    found = run.json()
    return run, found, run.wall_s - found["untimed_s"]


def rounds(args, job, contenders):
    """Lets contenders take turns: name -> a function that runs it and returns (record, what it found). Returns what
    they found in the first round; ours must find the same in every round."""
    first = {}
    for turn in range(1, args.rounds + 1):
        names = [name for name in contenders if name != LOOP or turn <= args.loop_rounds]
        for name in names if turn % 2 else reversed(names):
            peers.wait_for_quiet(args.wait_quiet)
            entry, found = contenders[name]()
            job["runs"].setdefault(name, []).append(entry | {"round": turn})
            if first.setdefault(name, found) != found and name not in VARIANTS:
                sys.exit(f"{job['job']}: round {turn} of {name} has other answers than round 1")
            told = f"whole {entry['whole_s']:.1f} s, work {entry['work_s']:.1f} s, load {entry['load_before']:.2f}"
            progress(f"{job['job']} {job['dtype']} round {turn}/{args.rounds} {name}: {told}")
    job["runs"] = {name: job["runs"][name] for name in contenders if name in job["runs"]}
    return first


def check(job, what, holds):
    """Records a check: whether it holds, or None if it is only told."""
    job["checks"].append({"what": what, "holds": holds})


# ---------------------------------------------------------------- sweep


def sweep(args, model, dtype, job, sets, lambdas, count):
    prompts, work = model.prompts(count), model.work_dir(job["job"])
    arms = [(heads, factor) for heads in sets for factor in lambdas]
    items, out = write_items(work / "items.jsonl", [{"input_ids": ids} for ids in prompts]), work / "out"
    command = ours(args, "sweep", model, dtype, "--items", items, "--lambda", ",".join(f"{x:g}" for x in lambdas))
    for heads in sets:
        command += ["--heads", ",".join(model.heads.name(*at) for at in heads)]
    # The untouched model is the reference of every sweep: λ = 1 of all sets, asked for or not.
    rows = (len(sets) * sum(x != 1 for x in lambdas) + 1) * len(prompts)
    command += ["--max-new-tokens", args.new_tokens, "--max-rows", rows, "--out", out]
    command += exact_length(args, "sweep", job)
    lengths = spread(list(map(len, prompts)), 0)
    job["work"] = f"{len(prompts)} prompts of {lengths} tokens x {len(arms)} plans x {args.new_tokens} new tokens"
    job["command"] = peers.typed(command)
    if rows > len(arms) * len(prompts):
        job["notes"].append(f"{OURS} generates {len(prompts)} rows of the untouched model too, which are not counted")

    def run_ours():
        shutil.rmtree(out, ignore_errors=True)  # existing rows would not be made again
        run = peers.run(command, args.threads)
        answers, log_probs = read_answers(out / "rows.jsonl", model, arms, len(prompts), rows)
        job["log_probs"] = log_probs
        return record(run, work_of(args, model, dtype, job, run), sum(map(len, answers))), answers

    def run_peer(name):
        plans = [[(*at, factor) for at in heads] for heads, factor in arms]
        task = {"task": "sweep", "variant": VARIANTS[name], "dtype": dtype, "prompts": prompts, "arms": plans}
        run, found, whole = run_theirs(args, model.spec_file(task | {"new_tokens": args.new_tokens}))
        answers = found["answers"]
        return record(run, found["work_s"], sum(map(len, answers)), whole), answers

    chosen = [name for name in [LOOP, BATCH, ROWS] if VARIANTS[name] not in args.skip]
    contenders = {OURS: run_ours} | {name: lambda name=name: run_peer(name) for name in chosen}
    found = rounds(args, job, contenders)
    for name in chosen:
        compare_answers(job, f"{OURS} and {name}", found[OURS], found[name], dtype == "f32")
    if len(chosen) > 1:  # the floor: how far transformers agrees with itself
        compare_answers(job, f"{chosen[0]} and {chosen[-1]}", found[chosen[0]], found[chosen[-1]], False)
    moved = len(prompts) - unmoved(job.pop("log_probs"), len(prompts))
    check(job, f"{OURS}: the plans move the log-probability of {moved} of {len(prompts)} prompts", moved == len(prompts))
    for name, answers in found.items():
        moved = len(prompts) - unmoved(map(tuple, answers), len(prompts))
        what = f"{name}: {moved} of {len(prompts)} prompts are answered otherwise under some plan"
        check(job, what, moved > 0 if args.new_tokens >= TELLING_TOKENS else None)


def unmoved(values, count):
    """The number of prompts whose value is the same under every plan. Values are by arm, then by prompt."""
    values = list(values)
    return sum(len(set(values[i::count])) == 1 for i in range(count))


def read_answers(path, model, arms, count, expected):
    """Token ids of our answers and their log-probabilities, in the order of the peers': by arm, then by prompt."""
    rows = {}
    for row in map(json.loads, path.read_text().splitlines()):
        heads, _, factor = row["variant"].rpartition("@")
        rows[heads, float(factor) if heads else 1.0, row["id"]] = row["response_ids"], row["sum_logprob"]
    names = [("+".join(model.heads.name(*at) for at in heads), factor) for heads, factor in arms]
    wanted = [(heads if factor != 1 else "", factor) for heads, factor in names]
    if len(rows) != expected:
        sys.exit(f"{shown(path)} has {len(rows)} rows, not {expected}")
    found = [rows[heads, factor, str(i)] for heads, factor in wanted for i in range(count)]
    return [ids for ids, _ in found], [log_prob for _, log_prob in found]


def compare_answers(job, who, some, others, demanded):
    """How many answers are equal, and how many tokens precede the first difference. An answer of ours that ended early
    is compared as far as it goes."""
    whole = same = total = 0
    for a, b in zip(some, others, strict=True):
        length = min(len(a), len(b))
        parted = next((i for i in range(length) if a[i] != b[i]), length)
        whole, same, total = whole + (parted == length), same + parted, total + length
    what = f"{who}: {whole} of {len(some)} answers equal, {100 * same / max(total, 1):.1f} % of tokens before the first"
    what += " difference" + (f" (at least {EQUAL_ANSWERS:.0%} of answers)" if demanded else " (told only)")
    check(job, what, whole >= EQUAL_ANSWERS * len(some) if demanded else None)


# ---------------------------------------------------------------- the causal map


def causal_map(args, model, dtype, job):
    if not has(args, "score"):
        sys.exit("this binary has no `temper score`\nhint: leave map out of --jobs")
    heads, work = model.heads.all(), model.work_dir("map")
    if args.map_heads:
        heads = heads[:: max(1, len(heads) // args.map_heads)][: args.map_heads]
    texts, lambdas = model.recorded(args.texts), args.map_lambdas
    items = write_items(work / "items.jsonl", texts)
    plans = [[(*at, factor)] for at in heads for factor in lambdas]
    cells = [(plan, item) for plan in range(len(plans)) for item in range(len(texts))]
    tokens = len(plans) * sum(len(text["input_ids"]) for text in texts)
    lengths = spread([len(text["input_ids"]) for text in texts], 0)
    job["work"] = f"{len(heads)} heads x {len(lambdas)} λ on {len(texts)} texts of {lengths} tokens"

    def command(*options):
        listed = ",".join(model.heads.name(*at) for at in heads) if args.map_heads else "all"
        wanted = ["--items", items, "--heads", listed, "--lambda", ",".join(f"{x:g}" for x in lambdas)]
        return ours(args, "score", model, dtype, *wanted, "--out", work / "out", *options)

    def run_ours(*options):
        shutil.rmtree(work / "out", ignore_errors=True)
        run = peers.run(command(*options), args.threads, allowed=(0, 1))
        if run.status == 1:
            job["notes"].append(f"`temper score` ended with 1: {run.lines[-1][1]}")
        entry = record(run, work_of(args, model, dtype, job, run), tokens)
        return entry, read_scores(work / "out/scores.npz", model, plans, len(texts))

    def run_peer(name):
        if name == LOOP:
            part = sample(cells, len(plans), args.loop_cells // len(texts))
        else:  # whole batches of whatever size the calibration finds
            part = sample(cells, len(plans), -(-round(args.peer_share * len(plans)) // 64) * 64)
        task = {"task": "map", "variant": VARIANTS[name], "dtype": dtype, "items": texts, "plans": plans}
        run, found, whole = run_theirs(args, model.spec_file(task | {"cells": part}))
        work_s = found["base_s"] + found["cells_s"] * len(cells) / len(part)
        entry = record(run, work_s, tokens, whole - found["work_s"] + work_s)
        told = {"cells": len(part), "of": len(cells), "batch": found["batch"]}
        calibration = {"calibration_s_a_row": found["calibration_s_a_row"]}
        return entry | told | calibration, {tuple(numbers(key)): s for key, s in found["scores"].items()}

    contenders = {OURS: run_ours}
    if "plain" not in args.skip and has(args, "score", "--plain"):
        contenders[PLAIN] = lambda: run_ours("--plain")
    chosen = [name for name in [BATCHED, LOOP] if VARIANTS[name] not in args.skip]
    contenders |= {name: lambda name=name: run_peer(name) for name in chosen}
    job["command"] = peers.typed(command())
    found = rounds(args, job, contenders)
    responses = [len(text["input_ids"]) - text["prompt_len"] for text in texts]
    for name in [name for name in found if name != OURS]:
        compare_scores(job, name, found[OURS], found[name], responses, dtype == "f32")
    moves = sorted(max(abs(found[OURS][plan, item][0]) for item in range(len(texts))) for plan in range(len(plans)))
    told = f"{OURS}: |Δ log-prob| of the least and of the most moving plan {moves[0]:.1e} and {moves[-1]:.1e}"
    check(job, told, moves[-1] > 100 * MAP_TOLERANCE)
    for name in chosen:
        entry = job["runs"][name][0]
        if entry["cells"] < entry["of"]:
            told = f"{name} measured on {entry['cells']} of {entry['of']} cells and scaled up"
            job["notes"].append(f"{told}: their cost is the same for every layer")
    batches = sorted({entry["batch"] for entry in job["runs"].get(BATCHED, [])})
    if batches:
        job["notes"].append(f"{BATCHED}: {', '.join(map(str, batches))} rows at once, by calibration")


def sample(cells, plans, count):
    """The cells of `count` plans, drawn over all layers; always the same."""
    chosen = set(random.Random(SEED).sample(range(plans), min(max(count, 1), plans)))
    return [(plan, item) for plan, item in cells if plan in chosen]


def read_scores(path, model, plans, texts):
    """(plan, text) -> Δ log-prob, KL and agreement, as `temper score` wrote them."""
    import numpy

    with numpy.load(path, allow_pickle=False) as file:
        names, factors = file["head_name"].tolist(), [float(x) for x in file["lambda"]]
        ids = file["id"].tolist()
        arrays = [file[key] for key in ["delta_logprob", "kl", "agreement"]]
    found = {}
    for index, [(layer, head, factor)] in enumerate(plans):
        nearest = min(range(len(factors)), key=lambda i: abs(factors[i] - factor))
        at = names.index(model.heads.name(layer, head)), nearest
        for item in range(texts):
            found[index, item] = [float(x[at][ids.index(str(item))]) for x in arrays]
    return found


def compare_scores(job, name, mine, other, responses, demanded):
    worst = {"Δ log-prob": 0.0, "KL": 0.0}
    worst_sum, worst_share = 0.0, 0.0
    for (plan, item), values in other.items():
        own = mine[plan, item]
        for index, what in enumerate(worst):
            difference = abs(own[index] - values[index])
            worst[what] = max(worst[what], difference / responses[item])
            worst_sum = max(worst_sum, difference)
        worst_share = max(worst_share, abs(own[2] - values[2]))
    told = ", ".join(f"{what} {value:.1e}" for what, value in worst.items())
    what = f"{OURS} and {name}, {len(other)} cells: worst difference a token {told}; of a sum {worst_sum:.1e}; "
    what += f"of the agreement {worst_share:.3f}"
    what += f" (at most {MAP_TOLERANCE} a token)" if demanded else " (told only)"
    check(job, what, max(worst.values()) <= MAP_TOLERANCE if demanded else None)


# ---------------------------------------------------------------- plans


def many_plans(args, model, dtype, job):
    rows, work = args.plan_rows, model.work_dir("plans")
    dice = random.Random(SEED)
    # No two prompts begin alike, so that nothing can be shared, whatever the plans are.
    prompts = [[dice.randrange(model.vocab // 100, model.vocab) for _ in range(16)] for _ in range(rows)]
    items = write_items(work / "items.jsonl", [{"input_ids": ids} for ids in prompts])
    command = ours(args, "generate", model, dtype, "--items", items, "--max-rows", rows)
    command += ["--max-new-tokens", args.new_tokens, *exact_length(args, "generate", job)]
    job["work"] = f"{rows} rows of 16 prompt and {args.new_tokens} new tokens in one batch, 5 random heads a plan"
    job["command"] = peers.typed([*command, "--plan", work / "lambda.npz"])

    def run_with(count):
        plan = ["--plan", write_table(work / f"lambda-{count}.npz", model, rows, count)] if count else []
        run = peers.run([*command, *plan], args.threads)
        answers = {row["id"]: row["response_ids"] for row in map(json.loads, run.stdout.splitlines())}
        if len(answers) != rows:
            sys.exit(f"{job['command']}\nanswered {len(answers)} of {rows} prompts")
        told = next(line for _, line in reversed(run.lines) if " tokens in " in line)
        seconds = float(told.split(" tokens in ")[1].split()[0])
        return record(run, seconds, sum(map(len, answers.values()))), answers

    contenders = {case(count): lambda count=count: run_with(count) for count in args.plan_counts}
    contenders[case(0) + ", again"] = lambda: run_with(0)
    found = rounds(args, job, contenders)
    base = found[case(0)]
    check(job, "no plan twice: the same answers", base == found[case(0) + ", again"])
    for count in filter(None, args.plan_counts):
        moved = sum(base[key] != answer for key, answer in found[case(count)].items())
        check(job, f"{case(count)}: {moved} of {rows} answers are others than without", moved > 0)


def write_table(path, model, rows, count):
    """Writes a λ table of `rows` rows with `count` different plans; a single row if there is one plan."""
    import numpy

    dice, plans = random.Random(SEED + count), {}
    while len(plans) < count:
        heads = tuple(sorted(dice.sample(model.heads.all(), 5)))
        plans[heads, dice.choice([0.0, 0.25, 0.5, 0.75])] = None
    plans = list(plans)
    factors = numpy.ones((rows if count > 1 else 1, model.layers, max(model.heads.counts)), numpy.float32)
    for row in range(len(factors)):
        heads, factor = plans[row % count]
        for layer, head in heads:
            factors[row, layer, head] = factor
    numpy.savez(path, **{"lambda": factors})
    return path


# ---------------------------------------------------------------- command line


def floats(text):
    return [float(x) for x in text.split(",")]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    jobs = "sweep,sweep16,map,plans"
    add("--jobs", default=jobs, help=f"comma-separated (default: {jobs})")
    add("--model", default="smollm2", help="smollm2, qwen3 or qwen3.5 (0.6B, 0.8B, random weights), or a directory")
    add("--temper-bin", type=pathlib.Path, default=ROOT / "target/release/temper", metavar="FILE")
    add("--temper-args", default="", metavar="ARGS", help="more arguments of every command of ours, in one string")
    add("--dtypes", default="f32", help="comma-separated: f32, bf16, f16 (default: f32)")
    add("--threads", type=int, default=os.cpu_count())
    add("--rounds", type=int, default=3)
    add("--loop-rounds", type=int, metavar="N", help="rounds of 'hooks, one by one' (default: all)")
    add("--skip", default="", help="contenders to leave out: loop, batch, rows, batched, plain")
    add("--prompts", type=int, default=20, help="of sweep (default: 20)")
    add("--lambdas", type=floats, default=[1.0, 0.75, 0.5, 0.25, 0.0], help="of sweep (default: 1,0.75,0.5,0.25,0)")
    add("--new-tokens", type=int, default=64, help="of sweep, sweep16 and plans (default: 64)")
    add("--texts", type=int, default=8, help="of map (default: 8)")
    add("--map-lambdas", type=floats, default=[0.0, 0.5], help="of map (default: 0,0.5)")
    add("--map-heads", type=int, metavar="N", help="so many heads of map, evenly spread (default: all)")
    add("--peer-share", type=float, default=1.0, help="share of map's cells on which 'hooks, batched' is measured")
    add("--loop-cells", type=int, default=64, help="cells of map on which 'hooks, one by one' is measured (default: 64)")
    add("--plan-rows", type=int, default=256, help="of plans (default: 256)")
    add("--plan-counts", type=numbers, default=[0, 1, 16, 256], help="of plans (default: 0,1,16,256)")
    add("--wait-quiet", type=float, default=0, metavar="SECONDS", help="before each run, wait for idle cores this long")
    add("--quick", action="store_true", help="tiny sizes and a tiny model, to see that all of it works")
    add("--out", type=pathlib.Path, metavar="FILE", help="keep every measurement as JSON")
    if "--quick" in sys.argv[1:]:
        parser.set_defaults(**QUICK)
    args = parser.parse_args()
    args.jobs, args.skip = args.jobs.split(","), [x for x in args.skip.split(",") if x]
    if args.loop_rounds is None:
        args.loop_rounds = args.rounds
    known = {"a job": (args.jobs, jobs.split(",")), "a dtype": (args.dtypes.split(","), list(DTYPES))}
    known["a contender"] = (args.skip, ["loop", "batch", "rows", "batched", "plain"])
    for what, (given, allowed) in known.items():
        for name in given:
            if name not in allowed:
                parser.error(f"'{name}' is not {what}, which are {', '.join(allowed)}")
    if min(args.rounds, args.loop_rounds, args.prompts, args.texts, args.loop_cells, args.new_tokens - 1) < 1:
        parser.error("rounds, prompts, texts and cells are at least 1, new tokens 2")
    if not 0 < args.peer_share <= 1:
        parser.error("--peer-share is above 0 and at most 1")
    if 0 not in args.plan_counts or max(args.plan_counts) > args.plan_rows:
        parser.error("--plan-counts holds 0 and nothing above --plan-rows")
    return args


def run_job(args, model, name, dtype):
    job = {"job": name, "model": model.dir.name, "dtype": dtype, "runs": {}, "checks": [], "notes": []}
    if name == "sweep":
        sweep(args, model, dtype, job, [model.head_set(0)], args.lambdas, args.prompts)
    elif name == "sweep16":
        sets = [model.head_set(i) for i in range(4)]
        sweep(args, model, dtype, job, sets, [0.75, 0.5, 0.25, 0.0], max(1, args.prompts // 4))
    elif name == "map":
        causal_map(args, model, dtype, job)
    else:
        many_plans(args, model, dtype, job)
    return job


def main():
    args = parse_arguments()
    peers.require("torch", "transformers", "numpy")
    peers.check_binary(args.temper_bin)
    model, jobs, head = Model(args), [], bench_report.head(args.temper_bin, args.threads, args.rounds)
    for dtype in args.dtypes.split(","):
        for name in args.jobs:
            jobs.append(run_job(args, model, name, dtype))
            if args.out:  # after every job: hours are not lost to a later one
                args.out.write_text(json.dumps(head | {"jobs": jobs}, indent=1) + "\n")
    print(bench_report.report(head, jobs))
    if any(c["holds"] is False for job in jobs for c in job["checks"]):
        progress("a check failed")
        sys.exit(1)


if __name__ == "__main__":
    main()
