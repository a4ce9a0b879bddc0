"""What the comparisons with other engines share: runs of a contender, the machine, tables. Not run by itself."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux


def progress(text):
    print(text, file=sys.stderr, flush=True)


def require(*packages, file="scripts/golden/requirements.txt"):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        command = f"{shlex.quote(pathlib.Path(sys.executable).name)} -m pip install -r {file}"
        script = pathlib.Path(sys.argv[0]).name
        sys.exit(f"{script} needs {', '.join(missing)}, which this Python does not have.\nhint: {command}")


def numbers(text):
    return [int(x) for x in text.split(",")]


def parse_plan(text):
    """(layer, head, factor) of each entry of L0H4:0.5,L5H2:0.5."""
    entries = []
    for entry in filter(None, (text or "").split(",")):
        match = re.fullmatch(r"\s*L(\d+)[HV](\d+):(-?[\d.]+)\s*", entry)
        if not match:
            sys.exit(f"'{entry}' is not of the form L0H4:0.5")
        entries.append((int(match[1]), int(match[2]), float(match[3])))
    return entries


# ---------------------------------------------------------------- the binary


def check_binary(path):
    if not os.access(path, os.X_OK):
        sys.exit(f"there is no binary {path}\nhint: cargo build --release")


# ---------------------------------------------------------------- runs


def busy_seconds():
    """CPU seconds that this machine has spent, or None if /proc does not say."""
    with contextlib.suppress(OSError):
        fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and iowait
    return None


def wait_for_quiet(limit_s):
    """Waits until other processes use less than a tenth of a core: every barrier of OpenMP waits for a neighbour."""
    end = time.monotonic() + limit_s
    while (busy := busy_seconds()) is not None and time.monotonic() < end:
        time.sleep(2)
        if busy_seconds() - busy < 0.2:
            return


@dataclasses.dataclass
class Run:
    """A process that has ended with an allowed status."""

    command: list
    status: int
    stdout: str
    lines: list  # (seconds since the start, line of stderr)
    wall_s: float
    peak_rss_mb: float
    load_before: float  # load average
    others_cores: float | None  # cores that other processes used during the run

    def machine(self):
        found = {"load_before": self.load_before, "peak_rss_mb": self.peak_rss_mb}
        return found if self.others_cores is None else found | {"others_cores": self.others_cores}

    def json(self):
        try:
            return json.loads(self.stdout)
        except json.JSONDecodeError:
            sys.exit(f"{shlex.join(self.command)}\nprinted no JSON object:\n{self.stdout.strip()[-2000:]}")


def run(command, threads, allowed=(0,)):
    """Runs one contender; ends the whole comparison if its exit status is not allowed."""
    command = [str(part) for part in command]
    load, lines = os.getloadavg()[0], []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    busy, start = busy_seconds(), time.monotonic()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        reader = threading.Thread(
            target=lambda: lines.extend((time.monotonic() - start, line.rstrip()) for line in process.stderr)
        )
        reader.start()
        stdout = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        reader.join()
    if process.returncode not in allowed:
        said = "\n".join(line for _, line in lines)[-2000:]
        sys.exit(f"{shlex.join(command)}\nended with {process.returncode}:\n{said}")
    others = None
    if busy is not None:
        others = max(0.0, (busy_seconds() - busy - usage.ru_utime - usage.ru_stime) / wall)
    return Run(command, process.returncode, stdout, lines, wall, usage.ru_maxrss * RSS_UNIT / 1e6, load, others)


# ---------------------------------------------------------------- tables


def shown(path):
    """A path as one would type it from the repository's root."""
    path = pathlib.Path(os.path.abspath(path))  # not resolved: a link is what was typed
    with contextlib.suppress(ValueError):
        return path.relative_to(ROOT)
    return pathlib.Path(path.name)


def as_typed(argument):
    """An argument of a command line without this machine's directories."""
    option, equals, value = argument.rpartition("=")
    return option + equals + str(shown(value)) if value.startswith("/") else argument


def typed(command):
    return shlex.join(as_typed(str(part)) for part in command)


def table(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([text[0], rule, *text[1:]])


def spread(values, digits):
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def cpu_model():
    with contextlib.suppress(OSError):
        match = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if match:
            return match[1]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.check_output(["sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()
    return platform.processor() or platform.machine()
