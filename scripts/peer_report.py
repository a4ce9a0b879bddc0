"""The tables of bench_peers.py, and its goals. Not run by itself."""

import statistics

import bench_report
import peers
from peers import spread, table

# The ratios aimed at, within one dtype. They are told in the report but are no checks: a busy machine is no error.
# (job, dtype of ours, engine) -> how many times as fast
GOALS = {
    ("decode1", "f32", "transformers"): 3,
    ("decode1", "bf16", "transformers"): 5,
    ("decode1", "bf16", "llama.cpp"): 1,
    ("decode16", "f32", "transformers"): 3,
    ("decode16", "bf16", "transformers"): 3,
    ("prefill", "f32", "transformers"): 1.5,
    ("prefill", "bf16", "transformers"): 1,
}
QWEN35_DECODE = 5  # of decode1 against transformers on Qwen3.5, whatever the dtype
SHARE = 0.7  # of the machine's read bandwidth, in decode1 in bf16
QUIET = 0.2  # cores that others may use without a warning


def parts(who):
    """(engine, dtype) of 'transformers bf16, bare loop'."""
    engine, _, rest = who.partition(" ")
    return engine, rest.split(",")[0]


def place(who):
    engine, _ = parts(who)
    return ["ours", "transformers", "llama.cpp"].index(engine)


def goal_of(job, who, peer):
    """The least ratio aimed at, or None. The goals are about generate(); a bare loop is told beside it."""
    (_, dtype), (engine, _) = parts(who), parts(peer)
    if "bare loop" in peer:
        return None
    if job["job"] == "decode1" and engine == "transformers" and "qwen3.5" in job["model"]:
        return QWEN35_DECODE
    return GOALS.get((job["job"], dtype, engine))


def median_of(entries, key):
    values = [entry[key] for entry in entries if key in entry]
    return statistics.median(values) if values else None


def shown_number(value, digits):
    return "" if value is None else f"{value:.{digits}f}"


def share_of_bandwidth(job, entries):
    """Bytes of weights x tokens/s (one row reads all weights for each token), over the most that the machine read in
    any round: a limit measured beside a busy neighbour would flatter."""
    most = max(found["read_gb_s"] for found in job["limits"])
    return [entry["weights_mb"] * entry["speed"] / 1000 / most for entry in entries]


def speed_table(job):
    capture, decode1 = job["job"] == "capture", job["job"] == "decode1"
    lines = [["contender", "tokens/s", "of rounds", *(["whole, s", "work, s"] if capture else ["load, s"])]]
    lines[0] += ["peak memory, MB", "load average", "others' cores"]
    lines[0] += ["weights, MB", "of the read limit"] if decode1 else []
    for who, entries in job["runs"].items():
        speeds = [entry["speed"] for entry in entries]
        times = ["whole_s", "work_s"] if capture else ["load_s"]
        cells = [who, f"{statistics.median(speeds):.1f}", spread(speeds, 1)]
        cells += [shown_number(median_of(entries, key), 2) for key in times]
        others = [entry["others_cores"] for entry in entries if "others_cores" in entry]
        cells += [shown_number(median_of(entries, "peak_rss_mb"), 0), spread([e["load_before"] for e in entries], 1)]
        cells.append(spread(others, 2) if others else "unknown")
        if decode1:
            shares = share_of_bandwidth(job, entries)
            cells += [f"{entries[0]['weights_mb']:.0f}", f"{statistics.median(shares):.0%}"]
        lines.append(cells)
    return table(lines)


def round_ratios(some, others, value):
    by_round = {entry["round"]: entry for entry in others}
    return [value(entry) / value(by_round[entry["round"]]) for entry in some if entry["round"] in by_round]


def ratio_table(job):
    """Ours against each peer of the same dtype; empty if there is none."""
    measured = {"tokens/s": lambda entry: entry["speed"]}
    if job["job"] == "capture":
        seconds = {"whole command": "whole_s", "work alone": "work_s"}
        measured = {what: lambda entry, key=key: 1 / entry[key] for what, key in seconds.items()}
    lines = [["ours", "against", "what", "ratio", "goal"]]
    for who, entries in job["runs"].items():
        if parts(who)[0] != "ours":
            continue
        for peer, others in job["runs"].items():
            if parts(peer)[0] == "ours" or parts(peer)[1] != parts(who)[1]:
                continue
            goal = goal_of(job, who, peer)
            for what, value in measured.items():
                ratios = round_ratios(entries, others, value)
                met = "" if goal is None else f"{goal} ({verdict(statistics.median(ratios), goal)})"
                told = f"**{statistics.median(ratios):.2f}** ({spread(ratios, 2)})"
                lines.append([who.removeprefix("ours "), peer, what, told, met])
        if job["job"] == "decode1" and parts(who)[1] == "bf16":
            shares = share_of_bandwidth(job, entries)
            told = f"**{statistics.median(shares):.2f}** ({spread(shares, 2)})"
            met = f"{SHARE} ({verdict(statistics.median(shares), SHARE)})"
            lines.append([who.removeprefix("ours "), "the machine", "share of the read limit", told, met])
    return table(lines) if len(lines) > 1 else ""


def verdict(value, goal):
    return "met" if value >= goal else "fell short"


def disturbed(job):
    """A warning if other processes were at work."""
    most = max((entry.get("others_cores", 0) for entries in job["runs"].values() for entry in entries), default=0)
    if most < QUIET:
        return []
    told = f"others used up to {most:.2f} cores: whoever waits for all threads at barriers, as OpenMP does, is slowed most"
    return [f"{told}; measure again on a quiet machine"]


def limits_text(job):
    """The machine's limits as measured during the job."""
    units = {"read_gb_s": "GB/s read", "matmul_f32_gflop_s": "GFLOP/s in f32", "matmul_bf16_gflop_s": "in bf16"}
    told = []
    for key, unit in units.items():
        values = [found[key] for found in job["limits"]]
        told.append(f"{statistics.median(values):.0f} {unit} ({spread(values, 0)})")
    return f"The machine's limits in the same turns: {', '.join(told)}."


def job_text(job):
    if "variant" in job:  # of bench_sweep.py
        return bench_report.job_text(job).replace(f", {job['dtype']}\n", f", ours {job['variant']}\n", 1)
    lines = [f"### {job['job']}, {job['model']}", "", f"{job['work']}. {limits_text(job)}", ""]
    if "command" in job:
        lines += [f"Ours, once a round: `{job['command']}`", ""]
    lines += [speed_table(job), ""]
    if ratios := ratio_table(job):
        lines += [ratios, ""]
    marks = {True: "holds", False: "**FAILS**", None: "told"}
    lines += [f"* {marks[c['holds']]}: {c['what']}" for c in job["checks"]]
    lines += [f"* note: {note}" for note in job["notes"] + disturbed(job)]
    return "\n".join(lines).rstrip()


def head(args):
    """When, where and with what it was measured."""
    return bench_report.head(args.temper_bin if "ours" in args.peers else None, args.threads, args.rounds)


def report(about, jobs):
    """The whole report as Markdown."""
    lines = [f"{about['date']}, {about['machine']}; {about['versions']}; {about['rounds']} round(s) in turns.", ""]
    if "llama.cpp" in about:
        lines += [f"{about['llama.cpp']['version']}; {about['llama.cpp']['system']}.", ""]
    lines += ["```", about["command"], "```", ""]
    lines += [f"* left out: {line}" for line in about["left_out"]] + [""] * bool(about["left_out"])
    for job in jobs:
        lines += [job_text(job), ""]
    lines.append("Load average before each run; others' cores are what other processes used during it.")
    lines.append("In bf16 transformers and llama.cpp round activations too; ours does where it says products bf16.")
    return "\n".join(lines)
