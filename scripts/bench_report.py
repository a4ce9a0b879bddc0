"""The tables of bench_sweep.py, and its goals. Not run by itself."""

import datetime
import os
import statistics
import subprocess
import sys

import peers
from peers import spread, table

OURS = "temper"
LOOP, BATCH, ROWS = "hooks, one by one", "hooks, a batch a plan", "hooks, all rows at once"
BATCHED, PLAIN = "hooks, batched", "temper --plain"
# The ratios aimed at. They are told in the report but are not checks, since a busy machine is no error.
GOALS = {("sweep", LOOP): 8, ("sweep", BATCH): 2, ("map", LOOP): 10, ("map", BATCHED): 4}
FLAT = 0.03  # the share of tokens/s that more plans may cost


def case(count):
    return f"{count or 'no'} plan{'s' * (count != 1)}".replace("no plans", "no plan")


def per_token(entry, key):
    return entry[key] / entry["tokens"]


def ratios(some, others, key):
    """The others' time per token divided by that of `some`, round by round."""
    by_round = {entry["round"]: entry for entry in others}
    pairs = [(entry, by_round[entry["round"]]) for entry in some if entry["round"] in by_round]
    return [per_token(other, key) / per_token(one, key) for one, other in pairs]


def told_ratio(values):
    return f"**{statistics.median(values):.2f}** ({spread(values, 2)})"


def median_of(entries, key):
    return statistics.median(entry[key] for entry in entries)


def job_table(job):
    reference = OURS if OURS in job["runs"] else case(0)
    if reference == OURS:
        compares = ["temper is faster, whole command", "work alone"]
    else:
        compares = ["tokens/s to no plan, work alone"]
    lines = [["contender", "rounds", "whole, s", "load, s", "work, s", "tokens/s", *compares]]
    lines[0] += ["peak memory, MB", "load average", "others' cores"]
    for name, entries in job["runs"].items():
        seconds = [f"{median_of(entries, key):.2f}" for key in ["whole_s", "load_s", "work_s"]]
        speed = statistics.median(1 / per_token(entry, "work_s") for entry in entries)
        if name == reference:
            compared = ["1"] * len(compares)
        elif reference == OURS:
            compared = [told_ratio(ratios(job["runs"][OURS], entries, key)) for key in ["whole_s", "work_s"]]
        else:
            values = ratios(entries, job["runs"][reference], "work_s")
            compared = [f"**{statistics.median(values):.3f}** ({spread(values, 3)})"]
        others = [entry["others_cores"] for entry in entries if "others_cores" in entry]
        cells = [name, str(len(entries)), *seconds, f"{speed:.1f}", *compared]
        cells += [f"{median_of(entries, 'peak_rss_mb'):.0f}", spread([e["load_before"] for e in entries], 1)]
        lines.append([*cells, spread(others, 2) if others else "unknown"])
    return table(lines)


def goals(job):
    """The goals, and what came out."""
    found = []
    for (name, contender), least in GOALS.items():
        if job["job"] == name and contender in job["runs"]:
            told = []
            for key, what in {"whole_s": "whole command", "work_s": "work alone"}.items():
                value = statistics.median(ratios(job["runs"][OURS], job["runs"][contender], key))
                told.append(f"{what} {value:.2f} ({'met' if value >= least else 'fell short'})")
            found.append(f"goal against {contender}, at least {least}: {', '.join(told)}")
    if job["job"] == "plans":
        base = job["runs"][case(0)]
        for name, entries in list(job["runs"].items())[1:]:
            loss = 1 - statistics.median(ratios(entries, base, "work_s"))
            met = "the noise floor" if name.endswith("again") else "met" if loss <= FLAT else "fell short"
            found.append(f"goal for {name}, at most {FLAT:.0%} slower than no plan: {loss:+.1%} ({met})")
    return found


def job_text(job):
    lines = [f"### {job['job']}, {job['model']}, {job['dtype']}", "", job["work"] + ".", ""]
    lines += [f"Ours, once a round: `{job['command']}`", "", job_table(job), ""]
    marks = {True: "holds", False: "**FAILS**", None: "told"}
    lines += [f"* {marks[c['holds']]}: {c['what']}" for c in job["checks"]]
    lines += [f"* {line}" for line in goals(job)]
    lines += [f"* note: {note}" for note in job["notes"]]
    return "\n".join(lines)


def head(temper_bin, threads, rounds):
    """When, where and with what it was measured; leaves out the binary where it is not a contender."""
    from importlib.metadata import version

    versions = f"torch {version('torch')}, transformers {version('transformers')}"
    if temper_bin:
        temper = subprocess.run([temper_bin, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        versions = f"{temper}, {versions}"
    machine = f"{peers.cpu_model()}, {os.cpu_count()} logical cores, {threads} threads"
    return {
        "date": str(datetime.date.today()),
        "machine": machine,
        "versions": versions,
        "command": peers.typed(["python", peers.shown(sys.argv[0]), *sys.argv[1:]]),
        "rounds": rounds,
    }


def report(about, jobs):
    """The whole report as Markdown."""
    lines = [f"{about['date']}, {about['machine']}; {about['versions']}; {about['rounds']} round(s) in turns.", ""]
    lines += ["```", about["command"], "```", ""]
    lines += [job_text(job) + "\n" for job in jobs]
    if any(job["dtype"] != "f32" for job in jobs):
        lines.append("In bf16 and f16 transformers rounds activations too; ours holds weights so and computes in f32.")
    return "\n".join(lines).rstrip()
