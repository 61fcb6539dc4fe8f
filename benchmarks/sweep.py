"""How fast a grid of merges is, and a single merge, against mergekit; and how much memory a 7B shape takes.

    python benchmarks/sweep.py [--json] [--quick] [--repeat 3] [--only NAME ...] [--work DIR]

The grid is that of arXiv 2601.21115: linear, TIES, DARE and DELLA (density 0.5, epsilon 0.1) at nine weights, 36 merges
of two experts of 67.8 M parameters in bfloat16. Everything runs on one thread, on this machine, in one run; rivals take
turns with ours, and ratios are medians of the ratios of neighbours: their wall time over ours (for `_vs_io`, ours over
theirs). Ratios of CPU seconds stand beside them, since on a machine that has other work wall time says little.

    grid_vs_run_merge          36 calls of mergekit's `run_merge` in one warm process; ours in one pass, nothing written
    grid_vs_command            `mergekit-yaml` for two weights of each method, times 4.5
    grid_written_vs_run_merge  ours with all 36 written, with fsync, which mergekit does not; no digests, as mergekit
    compat_vs_run_merge        ours with mergekit's own arithmetic; every output is compared, bit by bit
    single_linear_vs_io        one linear merge, written, over reading the three inputs and writing as many bytes as
                               the output has, with fsync, in blocks of 1 MiB
    single_*_vs_mergekit       one merge, written, against one `run_merge`
    peak_gib_7b                the resident memory of a process that writes four merges (one of each method), and of one
                               that writes eight, of three sharded checkpoints of DeepSeek-Coder-7B's shapes, over what
                               it had after its imports; of as many of its 30 layers as `--layers-7b` says (a peak
                               depends on the largest tensor). Beside it the time of 36 points of all 30 layers,
                               extrapolated

`--quick` is the same on a toy: it shows that everything runs, and its figures say nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))

import torch
import yaml
from checkpoints import GRID, QUICK, SEVEN, Shape, make

from mixmerge import Checkpoint, checkpoint
from mixmerge.plugins import mergers
from mixmerge.plugins.mergekit import compat
from mixmerge.types import Derivation

GOALS = {
    "grid_vs_run_merge": (">=", 15.0),
    "grid_vs_command": (">=", 30.0),
    "grid_written_vs_run_merge": (">=", 10.0),
    "compat_vs_run_merge": (">=", 4.0),
    "single_linear_vs_io": ("<=", 1.3),
    "single_ties_vs_mergekit": (">=", 8.0),
    "single_della_vs_mergekit": (">=", 8.0),
    "single_dare_vs_mergekit": (">=", 5.0),
    "peak_gib_7b": ("<=", 1.0),
}
METHODS: dict[str, dict[str, float]] = {
    "linear": {},
    "ties": {"density": 0.5},
    "dare_linear": {"density": 0.5},
    "della": {"density": 0.5, "epsilon": 0.1},
}
WEIGHTS = [round(0.1 * tenth, 1) for tenth in range(1, 10)]
SEED = 1
SPARE_BYTES = 8_000_000_000  # so much of the disk stays free

Point = tuple[str, float]


@dataclass(frozen=True)
class Took:
    wall: float
    cpu: float

    def __add__(self, other: Took) -> Took:
        return Took(self.wall + other.wall, self.cpu + other.cpu)

    def times(self, factor: float) -> Took:
        return Took(self.wall * factor, self.cpu * factor)


def timed(do: Callable[[], Any]) -> tuple[Took, Any]:
    wall, cpu = time.perf_counter(), _cpu_s()
    result = do()
    return Took(time.perf_counter() - wall, _cpu_s() - cpu), result


def _cpu_s() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


# -- ours -------------------------------------------------------------------------------------------------------------


def ours(models: Sequence[Path], point: Point) -> Checkpoint:
    method, weight = point
    component = {found.name: found for found in mergers.register_mergers()}[method]
    values = component.complete(METHODS[method])
    first = {name: values[name] for name in component.prepare_parameters}
    rest = {name: value for name, value in values.items() if name not in first}
    base, *experts = stored(models)
    prepare = partial(component.prepare, **first) if component.prepare else None
    merge = partial(component.function, **rest)
    found = Derivation(
        base, tuple(experts), (weight, round(1 - weight, 1)), SEED, merge, prepare, method if prepare else "", method
    )
    return Checkpoint(f"{method} {weight}", base.path, f"{method} {weight}", found)


def exact(models: Sequence[Path], point: Point) -> Checkpoint:
    method, weight = point
    base, *experts = stored(models)
    found = compat(
        None if method == "linear" else base,
        experts,
        (weight, round(1 - weight, 1)),
        method=method,
        options=METHODS[method],
        dtype="bfloat16",
        seed=SEED,
    )
    return Checkpoint(f"compat {method} {weight}", base.path, f"compat {method} {weight}", found)


def stored(models: Sequence[Path]) -> list[Checkpoint]:
    return [Checkpoint(path.name, path, path.name) for path in models]


def swept(points: Sequence[Checkpoint]) -> None:
    for _ in checkpoint.sweep(points, threads=1):
        pass


def written(points: Sequence[Checkpoint], folder: Path) -> None:
    outs = [folder / str(index) for index in range(len(points))]
    checkpoint.write_many(points, outs, threads=1, digests=False)  # mergekit gives none


# -- mergekit ---------------------------------------------------------------------------------------------------------


def config(models: Sequence[Path], point: Point) -> dict[str, Any]:
    method, weight = point
    base, *experts = models
    both = [
        {"model": str(path), "parameters": {"weight": share, **METHODS[method]}}
        for path, share in zip(experts, (weight, round(1 - weight, 1)), strict=True)
    ]
    found: dict[str, Any] = {"merge_method": method, "models": both, "dtype": "bfloat16"}
    return found if method == "linear" else found | {"base_model": str(base)}


def run_merge(models: Sequence[Path], point: Point, out: Path) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions
    from mergekit.merge import run_merge as run

    options = MergeOptions(quiet=True, random_seed=SEED, copy_tokenizer=False, write_model_card=False)
    run(MergeConfiguration.model_validate(config(models, point)), str(out), options)


def command(models: Sequence[Path], point: Point, out: Path) -> None:
    file = out.with_suffix(".yml")
    file.write_text(yaml.safe_dump(config(models, point)))
    tool = Path(sys.executable).with_name("mergekit-yaml")
    start = [str(tool)] if tool.exists() else [sys.executable, "-m", "mergekit.scripts.run_yaml"]
    options = ["--no-copy-tokenizer", "--quiet", "--no-write-model-card", "--random-seed", str(SEED)]
    subprocess.run([*start, str(file), str(out), *options], check=True, capture_output=True)


# -- what is measured -------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, models: Sequence[Path], work: Path, repeat: int, weights: Sequence[float]) -> None:
        self.models, self.work, self.repeat = models, work, repeat
        self.points = [(method, weight) for method in METHODS for weight in weights]
        self.ratios: dict[str, list[tuple[float, float]]] = {}
        self.seconds: dict[str, list[tuple[float, float]]] = {}
        self.facts: dict[str, Any] = {}

    def note(self, name: str, took: Took) -> Took:
        self.seconds.setdefault(name, []).append((round(took.wall, 3), round(took.cpu, 3)))
        print(f"{name}: {took.wall:.2f} s, {took.cpu:.2f} s of CPU", file=sys.stderr)
        return took

    def ratio(self, name: str, over: Took, under: Took) -> None:
        self.ratios.setdefault(name, []).append((over.wall / under.wall, over.cpu / under.cpu))

    def out(self) -> Path:
        folder = self.work / "out"
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def grid(self) -> None:
        """mergekit's 36 in four turns of one method each, ours between them; `compat` has to match what it wrote."""
        points = [ours(self.models, point) for point in self.points]
        theirs, mine = Took(0, 0), []
        expected: dict[Point, str] = {}
        for method in METHODS:
            mine.append(self.note("grid", timed(lambda: swept(points))[0]))
            for point in (point for point in self.points if point[0] == method):
                out = self.out()
                theirs += timed(partial(run_merge, self.models, point, out))[0]
                expected[point] = fingerprint(checkpoint.tensors(Checkpoint("out", out, "out")))
        self.note("run_merge, all", theirs)
        for took in mine:
            self.ratio("grid_vs_run_merge", theirs, took)
        for _ in range(min(2, self.repeat)):
            self.out()
            took = self.note("grid written", timed(lambda: written(points, self.work / "out"))[0])
            self.ratio("grid_written_vs_run_merge", theirs, took)
        self.out()
        exacts = [exact(self.models, point) for point in self.points]
        took = self.note("compat", timed(lambda: swept(exacts))[0])
        self.ratio("compat_vs_run_merge", theirs, took)
        self._compare(exacts, expected)

    def _compare(self, exacts: Sequence[Checkpoint], expected: Mapping[Point, str]) -> None:
        found = dict.fromkeys(expected, False)
        totals = {point: hashlib.sha256() for point in self.points}
        for index, name, start, rows in checkpoint.sweep(exacts, threads=1):
            _feed(totals[self.points[index]], name if start == 0 else "", rows)
        for point, total in totals.items():
            found[point] = total.hexdigest() == expected[point]
        self.facts["compat_identical"] = {
            method: sum(same for point, same in found.items() if point[0] == method) for method in METHODS
        }
        self.facts["compat_compared"] = {method: len(found) // len(METHODS) for method in METHODS}

    def commands(self) -> None:
        points = [ours(self.models, point) for point in self.points]
        chosen = [(method, weight) for method in METHODS for weight in (0.3, 0.7)]
        took = Took(0, 0)
        for point in chosen:
            out = self.out()
            took += self.note("mergekit-yaml", timed(partial(command, self.models, point, out))[0])
        mine = self.note("grid", timed(lambda: swept(points))[0])
        self.ratio("grid_vs_command", took.times(len(self.points) / len(chosen)), mine)
        self.facts["commands_run"] = len(chosen)

    def single(self) -> None:
        for method, name in (("ties", "ties"), ("dare_linear", "dare"), ("della", "della")):
            point = [ours(self.models, (method, 0.3))]
            for _ in range(self.repeat):
                out = self.out()
                mine = self.note(f"one {name}", timed(partial(written, point, out))[0])
                out = self.out()
                theirs = self.note(f"run_merge {name}", timed(partial(run_merge, self.models, (method, 0.3), out))[0])
                self.ratio(f"single_{name}_vs_mergekit", theirs, mine)
        for _ in range(2 * self.repeat + 1):
            out = self.out()
            mine = self.note("one linear", timed(partial(written, [ours(self.models, ("linear", 0.3))], out))[0])
            out = self.out()
            bare = self.note("read and write", timed(partial(copied, self.models, out))[0])
            self.ratio("single_linear_vs_io", mine, bare)


def fingerprint(tensors: Iterator[tuple[str, torch.Tensor]]) -> str:
    """Of all tensors in sorted order but a tied head, which mergekit writes a second time."""
    total = hashlib.sha256()
    for name, tensor in tensors:
        if name != "lm_head.weight":
            _feed(total, name, tensor)
    return total.hexdigest()


def _feed(total: Any, name: str, rows: torch.Tensor) -> None:
    total.update(name.encode())
    total.update(rows.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def copied(models: Sequence[Path], out: Path) -> None:
    """Reads every byte of the models and writes as many as one of them has."""
    out.mkdir()
    buffer = memoryview(bytearray(1 << 20))
    with open(out / "copy", "wb", buffering=0) as copy:
        for number, path in enumerate(models):
            for file in sorted(path.glob("*.safetensors")):
                with open(file, "rb", buffering=0) as stream:
                    while count := stream.readinto(buffer):
                        if number == 0:
                            copy.write(buffer[:count])
        os.fsync(copy.fileno())


# -- a 7B shape -------------------------------------------------------------------------------------------------------

SEVEN_RUN = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import sweep

def status(field):
    line = next(line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) / (1 << 20)

out, count, models = Path(sys.argv[2]), int(sys.argv[3]), [Path(path) for path in sys.argv[4:]]
import safetensors, numpy
points = [sweep.ours(models, (method, weight)) for weight in sweep.WEIGHTS for method in sweep.METHODS][:count]
before = status("VmRSS")
start, cpu = time.perf_counter(), time.process_time()
sweep.swept(points) if sys.argv[2] == "-" else sweep.written(points, out)
took = time.perf_counter() - start, time.process_time() - cpu
print(json.dumps({"points": count, "peak_gib": status("VmHWM") - before, "seconds": took[0], "cpu_seconds": took[1]}))
"""


def seven(bench: Bench, shape: Shape, work: Path, counts: Sequence[int], write: bool, ready: Path | None) -> None:
    size = 2 * shape.parameters
    needed = size * ((0 if ready else 3) + (max(counts) if write else 0))
    free = shutil.disk_usage(work).free
    if needed + SPARE_BYTES > free:
        raise SystemExit(
            f"error: {needed / 1e9:.0f} GB are needed for {shape.layers} layers and {max(counts)} points, and "
            f"{free / 1e9:.0f} GB are free\n  hint: --layers-7b N, --points-7b N or --unwritten-7b"
        )
    folder = work / "seven"
    runs = []
    try:
        models = make(ready or folder, shape)
        for count in counts:
            out = str(folder / "out") if write else "-"
            arguments = [sys.executable, "-c", SEVEN_RUN, str(Path(__file__).parent), out, str(count)]
            done = subprocess.run([*arguments, *map(str, models)], check=True, capture_output=True, text=True)
            runs.append({name: round(value, 3) for name, value in json.loads(done.stdout.splitlines()[-1]).items()})
            print(f"7B shape: {runs[-1]}", file=sys.stderr)
            shutil.rmtree(folder / "out", ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    bench.facts["peak_gib_7b"] = max(run["peak_gib"] for run in runs)
    bench.facts["seven"] = {"layers": shape.layers, "parameters": shape.parameters, "written": write, "runs": runs}
    if len(runs) > 1:
        # More points cost what the last ones did; layers what they are of all 30.
        first, last = runs[0], runs[-1]
        for_one = (last["seconds"] - first["seconds"]) / (last["points"] - first["points"])
        whole = SEVEN.parameters / shape.parameters
        extrapolated = whole * (first["seconds"] + (36 - first["points"]) * for_one)
        bench.facts["seven"]["extrapolated_seconds_for_36_of_30_layers"] = round(extrapolated)


# -- the whole --------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quick", action="store_true", help="a toy, in seconds")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds (default: 3)")
    parser.add_argument("--only", nargs="+", choices=("grid", "commands", "single", "seven"), help="a part of it")
    parser.add_argument("--layers-7b", type=int, default=4, metavar="N", help="layers of the 7B shape (default: 4)")
    parser.add_argument(
        "--points-7b", type=int, nargs="+", default=[4, 8], metavar="N", help="merges of it in one pass (default: 4 8)"
    )
    parser.add_argument("--unwritten-7b", action="store_true", help="compute them and write none: for a small disk")
    parser.add_argument("--models-7b", type=Path, metavar="DIR", help="where they are, with so many layers")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where files are written (default: a temporary one)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mixmerge-sweep-", dir=options.work) as folder:
        result = measure(options, Path(folder))
    print(json.dumps(result, indent=1) if options.json else table(result))


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    shape = QUICK if options.quick else GRID
    models = make(work / "models", shape)
    weights = [0.3, 0.7] if options.quick else WEIGHTS
    bench = Bench(models, work, 1 if options.quick else options.repeat, weights)
    parts: dict[str, Callable[[], None]] = {"single": bench.single, "grid": bench.grid, "commands": bench.commands}
    large = Shape(64, 176, 2, 60_000, tied=False) if options.quick else SEVEN
    if not options.quick:
        large = Shape(large.hidden, large.inner, options.layers_7b, large.vocabulary, large.tied)
    parts["seven"] = lambda: seven(bench, large, work, options.points_7b, not options.unwritten_7b, options.models_7b)
    swept([ours(models, (method, 0.3)) for method in METHODS])  # warm
    run_merge(models, ("linear", 0.3), bench.out())
    for name, part in parts.items():
        if not options.only or name in options.only:
            part()
    medians = {
        name: [statistics.median(column) for column in zip(*found, strict=True)] for name, found in bench.ratios.items()
    }
    return {
        **{name: round(medians[name][0], 2) if name in medians else None for name in GOALS},
        **bench.facts,
        "cpu_ratios": {name: round(cpu, 2) for name, (_, cpu) in medians.items()},
        "seconds_wall_cpu": bench.seconds,
        "parameters": shape.parameters,
        "machine": {
            "cpus": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "load": [round(value, 2) for value in os.getloadavg()],
        },
    }


def table(result: Mapping[str, Any]) -> str:
    """The same for a reader."""
    lines = []
    for name, (sign, figure) in GOALS.items():
        if result.get(name) is not None:
            by_cpu = f"by CPU {result['cpu_ratios'][name]:.2f}" if name in result["cpu_ratios"] else ""
            lines.append(f"{name:<28}{result[name]:>8.2f}   {by_cpu:<16}goal {sign} {figure:g}")
    if "compat_identical" in result:
        same = ", ".join(f"{name} {count}" for name, count in result["compat_identical"].items())
        lines.append(f"compat, bit-identical of {next(iter(result['compat_compared'].values()))} each: {same}")
    if "seven" in result:
        lines.append(f"7B shape: {result['seven']}")
    lines.append(f"load {result['machine']['load']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
