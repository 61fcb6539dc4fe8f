"""How long the metrics of code summarisation take: seconds per 10,000 summaries, and that the numbers are the same.

    MIXMERGE_DATA=DIR python benchmarks/metrics.py [--samples N] [--repeat N] [--workers N] [--json]

"ours" is all that `measure` gives (METRICS in tasks/mm_code2text/metrics.py), and its intervals. "theirs" is what the
library evaluate and a loop over NLTK come to, one metric after the other, one text after the other, in one process:
NLTK's sentence_bleu and corpus_bleu, sacrebleu, rouge-score, NLTK's word_tokenize and meteor_score. Those are what
evaluate's scripts call; the scripts themselves come from the hub and are not run, nor is the resampling that evaluate's
rouge adds. Metrics that no library has (CodeXGLUE's, BLEU-CN, -DC, -DM, -NCS, -RC) are timed on our side alone.

Texts are real: 2,000 recorded summaries of Codex with their references (generations/code2text), then references of
CodeXGLUE's test sets (code2text/), each against the first half of itself followed by the second half of the next, so
that no pair occurs twice. WordNet is loaded before the clock starts; what either side remembers of words is forgotten
before each round. Rounds alternate, and ratios are medians of each round's.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

LANGUAGES = ("python", "java", "javascript", "php", "ruby", "go")
Pairs = tuple[Sequence[str], Sequence[str]]


def metrics() -> Any:
    """The metrics, imported by their path as lm-eval does."""
    from mixmerge.paths import tasks_folder

    spec = importlib.util.spec_from_file_location("mm_code2text_metrics", tasks_folder() / "mm_code2text/metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- texts ------------------------------------------------------------------------------------------------------


def texts(data: Path, count: int) -> Pairs:
    """References and summaries, `count` of each."""
    references: list[str] = []
    summaries: list[str] = []
    for language in ("java", "php"):
        folder = data / "generations" / "code2text" / language
        references += [line.partition("\t")[2] for line in (folder / "test.gold").read_text().splitlines()]
        summaries += [line.partition("\t")[2] for line in (folder / "codex_10shot.output").read_text().splitlines()]
    known = [
        " ".join(json.loads(row)["docstring_tokens"])
        for language in LANGUAGES
        for row in gzip.decompress((data / "code2text" / language / "test.jsonl.gz").read_bytes()).splitlines()
    ]
    for step in range(1, 100):
        if len(references) >= count:
            break
        for one, other in pairwise([*known[step:], *known[:step]]):
            mine, theirs = (one.split(), other.split()) if step % 2 else (other.split(), one.split())
            references.append(one if step % 2 else other)
            summaries.append(" ".join([*mine[: len(mine) // 2], *theirs[len(theirs) // 2 :]]))
    return references[:count], summaries[:count]


# -- theirs -----------------------------------------------------------------------------------------------------


def theirs(pairs: Pairs, normal: Pairs) -> dict[str, Any]:
    """By the names of METRICS, a value for each sample, or one of the corpus."""
    import sacrebleu
    from nltk.tokenize import word_tokenize
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu, sentence_bleu
    from nltk.translate.meteor_score import meteor_score
    from rouge_score.rouge_scorer import RougeScorer

    smoothing, scorer = SmoothingFunction(), RougeScorer(["rougeL"])

    def bleu(method: Any = None) -> Callable[[str, str], float]:
        return lambda r, s: 100 * sentence_bleu([r.split()], s.split(), smoothing_function=method)

    each: Mapping[str, Callable[[str, str], float]] = {
        "bleu4_nltk": bleu(),
        "chrfpp_sentence": lambda r, s: sacrebleu.sentence_chrf(s, [r], word_order=2).score,
        "rouge_l": lambda r, s: 100 * scorer.score(r, s)["rougeL"].fmeasure,
        "meteor": lambda r, s: 100 * meteor_score([word_tokenize(r)], word_tokenize(s)),
    }
    found: dict[str, Any] = {}
    for name, one in each.items():
        found[name] = [one(*pair) for pair in zip(*pairs, strict=True)]
        found[f"{name}_normalised"] = [one(*pair) for pair in zip(*normal, strict=True)]
    for k in (1, 2, 3, 4):
        one = bleu(getattr(smoothing, f"method{k}"))
        found[f"bleu4_nltk_method{k}"] = [one(*pair) for pair in zip(*pairs, strict=True)]
    whole = zip(*pairs, strict=True)
    found["meteor_whitespace"] = [100 * meteor_score([r.split()], s.split()) for r, s in whole]
    references, summaries = pairs
    found["bleu_fc"] = 100 * corpus_bleu([[r.split()] for r in references], [s.split() for s in summaries])
    found["bleu4_sacrebleu"] = sacrebleu.corpus_bleu(summaries, [references]).score
    found["chrfpp"] = sacrebleu.corpus_chrf(summaries, [references], word_order=2).score
    return found


def difference(ours: Any, items: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> dict[str, float]:
    """The largest for each metric, over samples."""
    largest = {}
    for name, values in found.items():
        mine = [item[name] for item in items]
        if not isinstance(values, list):
            mine, values = [ours.aggregate(name, mine)], [values]
        largest[name] = max(abs(a - b) for a, b in zip(mine, values, strict=True))
    return largest


# -- rounds -----------------------------------------------------------------------------------------------------


def forget(ours: Any) -> None:
    """What a side remembers of words and texts."""
    from nltk.corpus import wordnet

    for cached in (ours.meteor.stem, ours.meteor.synonyms, ours._chrf_parts):
        cached.cache_clear()
    for known in wordnet._synset_offset_cache.values():
        known.clear()


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, CPU seconds with those of child processes, and what came out."""
    before, start = os.times(), time.perf_counter()
    found = work()
    seconds, after = time.perf_counter() - start, os.times()
    return seconds, sum(after[:4]) - sum(before[:4]), found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    ours = metrics()
    ours.check_meteor()
    pairs = texts(options.data, options.samples)
    normal = tuple([ours.bleu.normalised(text) for text in side] for side in pairs)
    seconds: dict[str, list[float]] = {"ours": [], "ours_one_process": [], "theirs": [], "intervals": []}
    cpu_s: dict[str, list[float]] = {name: [] for name in seconds}
    items: Any = None
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours.measure(*pairs, options.workers),
        "ours_one_process": lambda: ours.measure(*pairs, 1),
        "intervals": lambda: ours.intervals(items, ours.METRICS),
        "theirs": lambda: theirs(pairs, normal),
    }
    largest: dict[str, float] = {}
    for number in range(options.repeat):
        for name, run in runs.items():
            forget(ours)
            took, used, found = timed(run)
            seconds[name].append(took)
            cpu_s[name].append(used)
            say(f"round {number + 1}, {name}: {took:.2f} s, {used:.2f} s of CPU")
            if name == "ours":
                items = found
        largest = difference(ours, items, found)
    scale = 10_000 / len(pairs[0])
    return {
        "seconds_per_10000": {name: round(statistics.median(took) * scale, 2) for name, took in seconds.items()},
        "cpu_s_per_10000": {name: round(statistics.median(used) * scale, 2) for name, used in cpu_s.items()},
        "times_faster": ratio(seconds, "ours"),
        "times_faster_one_process": ratio(seconds, "ours_one_process"),
        "times_less_cpu": ratio(cpu_s, "ours"),
        "largest_difference": max(largest.values()),
        "differences": largest,
        "metrics": {"ours": len(ours.METRICS), "theirs": len(largest)},
        "samples": len(pairs[0]),
        "workers": options.workers,
        "rounds": seconds,
        "machine": {
            "cpus": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "load": [round(value, 2) for value in os.getloadavg()],
        },
    }


def ratio(times: Mapping[str, Sequence[float]], name: str) -> float:
    """The median over rounds of their time over ours."""
    return round(statistics.median(a / max(b, 1e-9) for a, b in zip(times["theirs"], times[name], strict=True)), 2)


# -- the command ------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("MIXMERGE_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default), help="code2text/ and generations/ lie in it")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are reported")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of ours; theirs has one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if not (options.data / "generations" / "code2text").is_dir():
        parser.error(f"no generations/code2text in {options.data}\n  hint: --data DIR, or MIXMERGE_DATA")
    os.environ["MIXMERGE_DATA"] = str(options.data)
    warnings.simplefilter("ignore")  # NLTK warns of every text without a match
    result = measure(options)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for name, seconds in result["seconds_per_10000"].items():
        print(f"{name:<18}{seconds:>9.2f} s per 10,000   {result['cpu_s_per_10000'][name]:>9.2f} s of CPU")
    print(f"times faster {result['times_faster']}, in one process {result['times_faster_one_process']}")
    print(f"largest difference {result['largest_difference']:.1e}, over {result['metrics']['theirs']} metrics")


if __name__ == "__main__":
    main()
