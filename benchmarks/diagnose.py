"""What a diagnosis of a 7B model costs: `mixmerge diagnose` with l2, correlation and changed, against `cat`.

    python benchmarks/diagnose.py [--checkpoints DIR] [--rounds 3] [--quick] [--json]

Each round times `cat FILES > /dev/null` and then the whole command, its interpreter's start included, and before each
the files are taken out of this system's page cache (what lies below it, such as a host's cache, serves both alike).
Three checkpoints of DeepSeek-Coder-7B's shape (41 GB) are made below DIR, or a temporary folder, unless DIR has them
(`base`, `expert1`, `expert2`); --quick takes 67.8 M parameters, where the start is most of the time.

    time_vs_cat   median over the rounds of command / cat
    pass_vs_cat   the same of the pass over the files alone
    diagnose_cpu_s  what the command used of all processors together: on a busy machine, what there is to go by
    peak_gib      the largest memory that the command ever had
    authors_way   on 67.8 M parameters: seconds and GiB of doing as the paper's programs do (whole models in float32,
                  layer by layer), and of the command
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from checkpoints import GRID, SEVEN, make

NAMES = ("base", "expert1", "expert2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--authors-way", type=Path, metavar="DIR", help=argparse.SUPPRESS)  # a process of its own
    given = parser.parse_args()
    if given.authors_way:
        authors_way([given.authors_way / name for name in NAMES])
        return
    with tempfile.TemporaryDirectory(prefix="mixmerge-diagnose-") as temporary:
        folder = given.checkpoints or Path(temporary) / "big"
        models = make(folder, GRID if given.quick else SEVEN)
        found = compare(models, given.rounds)
        small = make(Path(temporary) / "small", GRID)
        found["authors_way"] = beside_the_authors(small, given.rounds)
    print(json.dumps(found, indent=1) if given.json else "\n".join(f"{key:12} {value}" for key, value in found.items()))


def compare(models: Sequence[Path], rounds: int) -> dict[str, object]:
    files = sorted(str(file) for model in models for file in model.glob("*.safetensors"))
    cats, commands, passes, peaks, cpus = [], [], [], [], []
    for number in range(rounds):
        evict(files)
        start = time.monotonic()
        subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True)
        cats.append(time.monotonic() - start)
        evict(files)
        seconds, peak, output, cpu = run(command(models))
        commands.append(seconds)
        cpus.append(cpu)
        peaks.append(peak)
        passes.append(json.loads(output)["seconds"])
        print(f"round {number + 1}: cat {cats[-1]:.1f} s, diagnose {seconds:.1f} s, {peak:.2f} GiB", file=sys.stderr)
    return {
        "time_vs_cat": round(ratio(commands, cats), 2),
        "pass_vs_cat": round(ratio(passes, cats), 2),
        "peak_gib": round(max(peaks), 2),
        "gigabytes": round(sum(Path(file).stat().st_size for file in files) / 1e9, 1),
        "cat_s": [round(value, 1) for value in cats],
        "diagnose_s": [round(value, 1) for value in commands],
        "diagnose_cpu_s": [round(value, 1) for value in cpus],
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def command(models: Sequence[Path]) -> list[str]:
    wanted = [word for name in ("l2", "correlation", "changed") for word in ("-d", name)]
    return [sys.executable, "-m", "mixmerge", "diagnose", *map(str, models), *wanted, "--json"]


def run(words: Sequence[str]) -> tuple[float, float, str, float]:
    """(seconds, peak GiB, output, seconds of CPU) of a command."""
    with tempfile.TemporaryFile("w+") as output:
        start = time.monotonic()
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(words)}: exit status {process.returncode}")
        output.seek(0)
        return seconds, peak_gib(used), output.read(), used.ru_utime + used.ru_stime


def peak_gib(used: resource.struct_rusage) -> float:
    return used.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def evict(files: Sequence[str]) -> None:
    if hasattr(os, "posix_fadvise"):
        for file in files:
            with open(file, "rb") as stream:
                os.fdatasync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def beside_the_authors(models: Sequence[Path], rounds: int) -> dict[str, object]:
    theirs, ours = [], []
    for _ in range(rounds):
        theirs.append(run([sys.executable, __file__, "--authors-way", str(models[0].parent)]))
        ours.append(run(command(models)))
    told = json.loads(theirs[0][2])
    values = {
        (one["metric"], one["group"], tuple(one["models"])): one["value"]
        for one in json.loads(ours[0][2])["measurements"]
    }
    apart = max(
        abs(value - values[metric, f"layer {layer}", tuple(who)]) / abs(value)
        for metric, who, by_layer in told
        for layer, value in enumerate(by_layer)
    )
    return {
        "authors_s": round(statistics.median(one[0] for one in theirs), 1),
        "authors_gib": round(max(one[1] for one in theirs), 2),
        "mixmerge_s": round(statistics.median(one[0] for one in ours), 1),
        "mixmerge_gib": round(max(one[1] for one in ours), 2),
        "largest_relative_difference": apart,
    }


def authors_way(models: Sequence[Path]) -> None:
    """Per layer, in float32 over whole models: mean Frobenius norm of the change; Pearson of the changes of at least
    30 % of their tensor's largest. Written from what the paper says, not from their programs."""
    import torch
    from safetensors.torch import load_file

    base, *experts = (
        {name: tensor.float() for file in model.glob("*.safetensors") for name, tensor in load_file(file).items()}
        for model in models
    )
    layers: dict[int, list[str]] = {}
    for name in base:
        if found := re.search(r"layers\.(\d+)\.", name):
            layers.setdefault(int(found[1]), []).append(name)
    norms: list[list[float]] = [[], []]
    pearson = []
    for _, names in sorted(layers.items()):
        kept = []
        for own, expert in zip(norms, experts, strict=True):
            changes = [expert[name] - base[name] for name in names]
            matrices = [change for change in changes if change.ndim > 1]
            own.append(sum(float(change.norm()) for change in matrices) / len(matrices))
            over = [torch.where(change.abs() < 0.3 * change.abs().max(), 0.0, change) for change in changes]
            kept.append(torch.cat([change.flatten() for change in over]))
        pearson.append(float(torch.corrcoef(torch.stack(kept))[0, 1]))
    first, second = NAMES[1:]
    told = [["l2_mean", [first], norms[0]], ["l2_mean", [second], norms[1]]]
    print(json.dumps([*told, ["pearson_plotted", [first, second], pearson]]))


if __name__ == "__main__":
    main()
