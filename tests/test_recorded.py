"""Recorded results: the paper's own tables against a computation of our own, and small tables with known faults."""

from __future__ import annotations

import csv
import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]
RECIPE = Path(__file__).parent.parent / "recipes" / "paper_tables.yaml"
METRICS = ("humaneval", "humaneval_plus", "mbpp", "mbpp_plus", "bleu4", "chrfpp", "rouge_l", "meteor")


@pytest.fixture(scope="module")
def paper(data_dir: Path) -> list[dict[str, str]]:
    path = data_dir.parent / "paper" / "results.csv"
    if not path.is_file():
        pytest.skip(f"the paper's tables are not at {path}")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def paper_run(paper: object, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What `mixmerge recipe recipes/paper_tables.yaml` prints, and the folder of its report."""
    import os
    import sys

    folder = tmp_path_factory.mktemp("paper")
    command = [sys.executable, "-m", "mixmerge", "recipe", str(RECIPE)]
    env = {**os.environ, "MIXMERGE_DATA": str(data_dir), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder / "runs" / "paper_tables" / "report"


@pytest.fixture(scope="module")
def doubts(paper_run: tuple[str, Path]) -> list[dict[str, str]]:
    with (paper_run[1] / "doubts.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def experts_of(paper: list[dict[str, str]], row: dict[str, str]) -> dict[str, str]:
    found = [one for one in paper if (one["table"], one["model"]) == (row["table"], row["model"])]
    return next(one for one in found if one["method"] == "SFT-CodeGen/Sum")


def test_every_average_that_does_not_follow_from_its_row_is_listed(
    paper: list[dict[str, str]], doubts: list[dict[str, str]]
) -> None:
    expected = {}
    for line, row in enumerate(paper, 2):
        experts = experts_of(paper, row)
        mean = sum(100 * (float(row[key]) - float(experts[key])) / float(experts[key]) for key in METRICS) / 8
        if abs(mean - float(row["avg_pct"])) > 0.05:
            expected[f"results.csv:{line}"] = (float(row["avg_pct"]), mean)
    found = {one["place"]: one for one in doubts if one["kind"] == "average"}
    assert found.keys() == expected.keys()
    assert len(expected) == 79  # of 180, as whoever collected the tables counted too
    for place, (printed, mean) in expected.items():
        assert float(found[place]["printed"]) == printed
        assert float(found[place]["computed"]) == pytest.approx(mean, abs=1e-9)


def test_the_rows_that_a_forgotten_edit_made_equal_are_listed(doubts: list[dict[str, str]]) -> None:
    """In every linear and TIES sweep the first run used the file of 0.5/0.5."""
    pairs = {(one["table"], one["subject"]) for one in doubts if one["kind"] == "identical" and "Table" in one["table"]}
    assert pairs == {
        (f"Table {table}", f"{method} 0.1/0.9 = {method} 0.5/0.5")
        for table in (5, 6, 7, 8)
        for method in ("Linear", "TIES")
    }


def test_scores_that_are_no_k_of_n_and_signs_that_are_turned(
    paper: list[dict[str, str]], doubts: list[dict[str, str]]
) -> None:
    tasks = {"humaneval": 164, "humaneval_plus": 164, "mbpp": 378, "mbpp_plus": 378}
    whole = {n: {f"{k / n:.3f}" for k in range(n + 1)} for n in (164, 378)}
    expected = [
        float(row[key]) for row in paper for key, n in tasks.items() if f"{float(row[key]):.3f}" not in whole[n]
    ]
    found = [float(one["printed"]) for one in doubts if one["kind"] == "count"]
    assert sorted(found) == sorted(expected)
    assert len(found) == 6
    turned = [one for one in doubts if one["kind"] == "sign"]
    assert len(turned) == 12
    for one in turned:
        assert float(one["printed"]) == pytest.approx(-float(one["computed"]), abs=0.02)


def test_every_change_in_doubt_is_off_by_more_than_rounding(
    paper: list[dict[str, str]], doubts: list[dict[str, str]]
) -> None:
    """By brute force: no pair of scores that round to the printed ones gives the printed change."""
    names = {"HumanEval": "humaneval", "HumanEval+": "humaneval_plus", "MBPP": "mbpp", "MBPP+": "mbpp_plus"}
    names |= {"BLEU-4": "bleu4", "chrF++": "chrfpp", "ROUGE-L": "rouge_l", "METEOR": "meteor"}
    checked = Counter()
    for one in doubts:
        if one["kind"] not in ("reference", "sign", "change"):
            continue
        row = paper[int(one["place"].split(":")[1]) - 2]
        key = names[one["text"].split(" is printed")[0].removesuffix(" of summaries")]
        half = 0.0005 if "pass" in key or key.startswith(("humaneval", "mbpp")) else 0.00005
        value, experts = float(row[key]), float(experts_of(paper, row)[key])
        possible = [100 * ((value + a * half) / (experts + b * half) - 1) for a in (-1, 1) for b in (-1, 1)]
        printed = float(row[f"{key}_pct"])
        assert not min(possible) - 0.005 <= printed <= max(possible) + 0.005
        checked[one["kind"]] += 1
    assert checked == {"reference": 301, "sign": 12, "change": 60}


def test_the_headline_row_differs_from_its_file(doubts: list[dict[str, str]]) -> None:
    row = next(one for one in doubts if one["kind"] == "source" and one["subject"] == "DARE 0.6/0.4")
    assert "HumanEval+ 0.734 and 0.72" in row["text"]
    assert "BLEU-4 of summaries 0.0531 and 0.0491" in row["text"]
    assert "dare_linear 0.6/0.6 (density 0.3)" in row["text"]


def test_the_papers_answers_with_their_intervals(paper_run: tuple[str, Path]) -> None:
    answers = dict(line.split(": ", 1) for line in paper_run[0].splitlines() if " points of relative change" in line)
    assert answers["Qwen2.5-Coder 1.5B"].startswith("mix: Data-Mixture SFT beats the best merge TIES 0.2/0.8 by 5.6 ")
    for name in ("Qwen2.5-Coder 7B", "DeepSeek-Coder 1.3B", "DeepSeek-Coder 7B", "Qwen2.5-Coder 14B"):
        assert answers[name].startswith("undecided: ")
    assert "printed averages that do not follow from their row: 79 of 180" in paper_run[0]


def test_a_second_call_has_nothing_to_do_and_the_rows_can_be_read(
    paper: object, data_dir: Path, mixmerge: Cli, paper_run: tuple[str, Path]
) -> None:
    out = paper_run[1].parent.parent
    env = {"MIXMERGE_DATA": str(data_dir)}
    done = mixmerge("recipe", RECIPE, "--out", out, env=env)
    assert "nothing to do" in done.stderr
    rows = json.loads(mixmerge("report", RECIPE, "--json", "--out", out, env=env).stdout)
    ours = [one for one in rows if (one["experiment"], one["model"]) == ("Qwen2.5-Coder 7B", "TIES 0.8/0.2")]
    assert {one["task"]: one["value"] for one in ours}["HumanEval"] == 0.927
    assert {one["task"]: one["k"] for one in ours}["HumanEval"] == 152
    assert mixmerge("check", RECIPE, env=env).returncode == 0


SMALL = """\
results:
  ours:
    file: scores.csv
    experiment: study
    method: how
    rows: {start: base, both: mixture, single: {a: [code], b: [text]}}
    weights: [w]
    scores:
      code: {task: code, metric: acc, n: 100, counted: true}
      text: {task: text, metric: loss, n: 50, higher_is_better: false}
advise: [mix_or_merge]
report: [csv]
"""


def small(tmp_path: Path, recipe: str = SMALL) -> Path:
    lines = ["how,w,code,text", "start,,0.20,3.0", "single,,0.80,1.0", "both,,0.70,1.1", "avg,0.5,0.40,2.0"]
    (tmp_path / "scores.csv").write_text("\n".join([*lines, "avg,0.7,0.60,"]) + "\n")
    (tmp_path / "small.yaml").write_text(recipe)
    return tmp_path / "small.yaml"


def test_a_table_of_ones_own(tmp_path: Path, mixmerge: Cli) -> None:
    """Lower is better for the loss, a missing score is left out, and what the noise of the loss is, nobody knows."""
    done = mixmerge("recipe", small(tmp_path))
    assert done.returncode == 0, done.stderr
    # code: (0.40 - 0.70) / 0.80 = -37.5 %; text: (1.1 - 2.0) / 1.0 = -90 %; the mean of both is -63.75 points
    assert "mix: both beats the best merge avg 0.5 by 63.7 points" in done.stdout
    rows = json.loads(mixmerge("report", tmp_path / "small.yaml", "--json").stdout)
    assert {(one["model"], one["task"]): one["value"] for one in rows}[("avg 0.7", "code")] == 0.6
    assert not [one for one in rows if (one["model"], one["task"]) in (("avg 0.7", "text"), ("a", "text"))]


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("scores.csv", "score.csv", 3, "there is no file score.csv"),
        ("weights: [w]", "weight: [w]", 7, "unknown key 'weight' in results.ours"),
        ("n: 100, ", "", 9, "results.ours.scores.code is counted and has no n"),
        ("{a: [code], b: [text]}", "{a: [code]}", 6, "no expert of results.ours.rows.single has 'text' for its own"),
        ("start: base", "start: origin", 6, "results.ours.rows.start is 'origin'"),
        ("advise:", "train: {}\nadvise:", 11, "unknown key 'train' in the top level"),
        ("    method: how", "    behind: theirs\n    method: how", 5, "no entry above is called 'theirs'"),
    ],
)
def test_a_mistake_is_told_with_its_line(
    tmp_path: Path, mixmerge: Cli, old: str, new: str, where: int, what: str
) -> None:
    assert old in SMALL
    done = mixmerge("check", small(tmp_path, SMALL.replace(old, new, 1)))
    assert done.returncode == 1
    assert f"small.yaml:{where}: {what}" in done.stderr
    assert "hint: " in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("code: {task", "codes: {task", "scores.csv:2: there is no column 'codes'"),
        ("experiment: study", "experiment: '{study}'", "scores.csv:2: '{study}' cannot be filled in"),
        ("weights: [w]", "weights: [how]", "scores.csv:2: how is 'start', not a number"),
    ],
)
def test_a_file_that_does_not_fit_is_told_with_its_line(
    tmp_path: Path, mixmerge: Cli, old: str, new: str, what: str
) -> None:
    recipe = SMALL.replace(old, new, 1).replace("a: [code]", f"a: [{'codes' if 'codes' in new else 'code'}]")
    done = mixmerge("recipe", small(tmp_path, recipe))
    assert done.returncode == 1
    assert what in done.stderr
    assert "Traceback" not in done.stderr
