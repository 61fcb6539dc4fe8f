"""Numbers and names as people read them: rounding, units, and a plain sentence for each word of the field."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

NO_BREAK = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"

KINDS = {
    "base": "base",
    "experts": "experts together",
    "expert": "expert",
    "mixture": "mixture",
    "merge": "merge",
    "model": "given model",
    "reference": "reference, not a model",
}

# What the methods do, in one sentence each; the words are those of the recipe.
METHODS = {
    "linear": "linear: the weighted average of the experts.",
    "task_arithmetic": "task_arithmetic: adds the weighted changes of the experts to the base.",
    "ties": "ties: keeps the largest changes of each expert, lets the experts vote on the sign of every weight, "
    "and averages those that agree with the vote.",
    "dare_linear": "dare_linear: drops changes at random, rescales the rest, and adds them up weighted.",
    "dare_ties": "dare_ties: drops changes at random, rescales the rest, then votes on signs as ties does.",
    "della": "della: drops changes at random, small ones more often, rescales, then votes on signs as ties does.",
    "della_linear": "della_linear: drops changes at random, small ones more often, and adds up the rest weighted.",
}

TERMS = {
    "base": "Base: the model that everything starts from, not trained here.",
    "expert": "Expert: the base, fine-tuned on the data of one task.",
    "mixture": "Mixture: the base, fine-tuned once on the data of all tasks together.",
    "merge": "Merge: a model whose weights are computed from those of the experts, without any training.",
    "weight": "Weight of an expert: how much it counts in a merge, as in 0.3/0.7 for the first and the second expert.",
    "change": "Change (delta): the weights of a model minus the weights of the base.",
    "l2_mean": "L2 distance: the length of the change of a weight tensor; 0 means that training left it alone. "
    "For a layer, the mean over its tensors.",
    "pearson": "Pearson correlation of two changes: 1 when they point the same way, 0 when they have nothing in "
    f"common, {MINUS}1 when they are opposite.",
}


@dataclass(frozen=True)
class Metric:
    """A metric as a column head shows it. `bounded`: its unit is 0–1 or 0–100, whichever the values tell."""

    label: str
    unit: str
    gloss: str
    bounded: bool = False


METRICS = {
    "pass1": Metric(
        "pass@1", "% solved", "pass@1: the share of problems whose first generated program passes all tests"
    ),
    "acc": Metric("accuracy", "% right", "accuracy: the share of questions answered right"),
    "accnorm": Metric("accuracy, normalised", "% right", "accuracy after dividing by the length of each answer"),
    "exactmatch": Metric("exact match", "% right", "exact match: the share of answers equal to the reference"),
    "rouge1": Metric("ROUGE-1", "", "ROUGE-1: words shared with the reference text", True),
    "rougel": Metric(
        "ROUGE-L", "", "ROUGE-L: the longest run of words, in order, shared with the reference text", True
    ),
    "bleu": Metric("BLEU", "", "BLEU: short word sequences shared with the reference text", True),
    "bleu4": Metric("BLEU-4", "", "BLEU-4: sequences of up to four words shared with the reference text", True),
    "bleu4codexglue": Metric(
        "BLEU-4, CodeXGLUE", "", "BLEU-4 as CodeXGLUE's evaluator has it: smoothed, mean of sentences", True
    ),
    "bleu4nltk": Metric("BLEU-4, NLTK", "", "BLEU-4 of NLTK: unsmoothed, mean of sentences, as in the paper", True),
    "bleu4sacrebleu": Metric("BLEU-4, sacrebleu", "", "BLEU of sacrebleu, over the whole corpus", True),
    "chrfppsentence": Metric("chrF++, sentences", "", "chrF++: mean of sentences, as in the paper", True),
    "chrf": Metric("chrF", "", "chrF: short letter sequences shared with the reference text", True),
    "chrfpp": Metric("chrF++", "", "chrF++: short letter and word sequences shared with the reference text", True),
    "meteor": Metric("METEOR", "", "METEOR: words shared with the reference text, synonyms and stems included", True),
    "bitspertoken": Metric(
        "held-out loss",
        "bits per token",
        "held-out loss: how surprised the model is by the reference answer; less is better",
    ),
    "bitsperbyte": Metric(
        "held-out loss",
        "bits per byte",
        "held-out loss: how surprised the model is by the reference answer; less is better",
    ),
    "perplexity": Metric("perplexity", "", "perplexity: how surprised the model is by the text; less is better"),
}
_ALIASES = {"passat1": "pass1", "rougelsum": "rougel", "chrf2": "chrfpp", "bpt": "bitspertoken", "em": "exactmatch"}


def metric(name: str, values: Sequence[float], *, counted: bool) -> Metric:
    """How to show the metric called `name`. `counted`: its values are k/n and are shown in percent."""
    plain = name.split(",")[0].lower().replace("++", "pp")
    key = re.sub(r"[^a-z0-9]", "", plain)
    normal = key.removesuffix("normalised")
    found = METRICS.get(_ALIASES.get(key, key)) or METRICS.get(normal) or Metric(name, "", "")
    if normal != key and key not in METRICS and found.gloss:
        found = replace(
            found, label=f"{found.label}, normalised", gloss=f"{found.gloss}; texts normalised as the paper does"
        )
    if found.bounded:
        return Metric(found.label, "0–100" if any(value > 1 for value in values) else "0–1", found.gloss)
    if counted and not found.unit:
        return Metric(found.label, "%", found.gloss)
    if found.unit.startswith("%") and not counted:
        return Metric(found.label, "0–100" if any(value > 1 for value in values) else "0–1", found.gloss)
    return found


def decimals(errors: Iterable[float | None], values: Iterable[float]) -> int:
    """Decimals for one column: one figure of a typical standard error, two where it begins with 1 or 2, and one decimal
    at least; without errors four figures of the values."""
    known = sorted(error for error in errors if error is not None and error > 0 and math.isfinite(error))
    if known:
        exponent = math.floor(math.log10(typical := known[len(known) // 2]))
        return _clip(max(1, -exponent + (typical / 10**exponent < 3)))
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    return _clip(3 - math.floor(math.log10(max(sizes)))) if sizes else 1


def _clip(digits: int) -> int:
    return max(0, min(digits, 4))


def number(value: float | None, digits: int = 3) -> str:
    """`value` rounded to `digits` decimals with a real minus sign; "–" for None."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: f"{MINUS}∞"}.get(value, "NaN")
    text = f"{value:,.{digits}f}".replace("-", MINUS)
    return text.lstrip(MINUS) if not text.strip(f"{MINUS}0.,") else text  # no minus zero


def figure(value: object, digits: int = 4) -> str:
    """Any scalar as a person writes it: `digits` significant figures, no exponent where it can be helped."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return number(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", MINUS)
    if abs(value) < 1e-3:
        return f"{MINUS if value < 0 else ''}{_small(abs(value))}"
    return number(value, max(0, digits - 1 - math.floor(math.log10(abs(value))))).rstrip("0").rstrip(".")


def significant(value: float, digits: int = 3) -> str:
    """`value` with a fixed number of significant figures, so that a column lines up: "1.00", "0.0421"."""
    if not math.isfinite(value) or not value:
        return number(value)
    if abs(value) < 1e-3:
        return figure(value)
    return number(value, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def _small(value: float) -> str:
    return re.sub(r"\.?0*e-0?", "e-", f"{value:.2e}")


def percent(value: float | None, digits: int = 1) -> str:
    """A signed change: "+3.2 %". Over 1,000 % only that: such a figure tells of what it is divided by."""
    if value is None:
        return "–"
    if abs(value) > 1000:
        return f"{'>' + NO_BREAK + '+' if value > 0 else '<' + NO_BREAK + '−'}1,000{NO_BREAK}%"
    text = number(value, digits)
    return f"{'+' if value > 0 and text.strip('0.,') else ''}{text}{NO_BREAK}%"


def duration(seconds: float) -> str:
    """ "41 s", "8 min 5 s", "3 h 20 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Bytes in binary units: "1.2 GiB"."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def moment(seconds: float) -> str:
    """A Unix time in UTC, to the minute."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def plural(count: int, one: str, many: str = "") -> str:
    """ "1 merge", "20 merges"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listing(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def settings(values: Mapping[str, Any]) -> str:
    """Swept settings on one line, without the method and the weights, which stand elsewhere: "density 0.5"."""
    shown = {key: value for key, value in values.items() if key not in ("method", "weights")}
    method = values.get("method")
    if isinstance(method, Mapping):
        for parameters in method.values():
            shown = {**(parameters if isinstance(parameters, Mapping) else {}), **shown}
    return ", ".join(f"{key} {figure(value)}" for key, value in shown.items())
