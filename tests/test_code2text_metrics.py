"""The metrics of code summarisation: figures that others print, and the libraries' own numbers on the same texts."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixmerge import SourceError
from mixmerge.scoring import score

ROOT = Path(__file__).parent.parent
Cli = Callable[..., subprocess.CompletedProcess[str]]


def load(name: str) -> Any:
    full = f"mm_code2text_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, ROOT / "tasks" / "mm_code2text" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[full]


METRICS = load("metrics")
LONG = " ".join(f"word{i % 37}" for i in range(600))
EDGES = [
    ("Returns the sum of two numbers .", "Return the sum of the two numbers ."),
    ("Opens a file for reading .", ""),
    ("", "Opens a file for reading ."),
    ("", ""),
    ("Checks whether the list is empty .", "checks"),
    ("checks", "checks"),
    ("the cat sat on the mat", "the cat sat on the mat"),
    ("... !!! ???", "... ???"),
    (".", "."),
    ("Größe der Datei 日本語 😀 zurückgeben", "größe der datei 日本語 😀 ."),
    ("İstanbul'da \ud800 ok", "istanbul'da ok"),
    ("Parses an ISO-8601 date, such as 2020-01-31, or 1.5e3.", "Parses a date such as 2020-01-31 or 1.5e3."),
    ("Removes all <b>tags</b> &amp; &quot;entities&quot;", '"Removes" all tags & entities <skipped> from-\nthe text'),
    ("It can't be done. You cannot go, 'tis late.", "It cannot be done . You can't go (late) ."),
    ("the the the the", "the the"),
    ("a  b\tc\n\nd   e", " a b c\u00a0d e "),
    ("Gets e.g. the U.S. value. And more.", "Gets the value e.g. U.S. And more"),
    ("Frees memory quickly", "Release the storage fast"),
    (LONG, LONG.replace("word3", "term")),
    ("short", LONG),
]
REFERENCES, SUMMARIES = [list(column) for column in zip(*EDGES, strict=True)]


def tsv(path: Path) -> list[str]:
    return [line.rstrip("\n").partition("\t")[2] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(params=["edges", "java", "php"])
def texts(request: pytest.FixtureRequest) -> tuple[list[str], list[str]]:
    if request.param == "edges":
        return REFERENCES, SUMMARIES
    folder = request.getfixturevalue("data_dir") / "generations" / "code2text" / request.param
    return tsv(folder / "test.gold")[:300], tsv(folder / "codex_10shot.output")[:300]


@pytest.fixture
def nltk_data(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXMERGE_DATA", str(data_dir))
    METRICS.check_meteor()


def column(items: Any, name: str) -> list[Any]:
    return [item[name] for item in items]


def close(found: Any, expected: Any) -> None:
    assert np.max(np.abs(np.array(found) - np.array(expected)), initial=0) < 1e-9


# -- figures that others print ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("language", "printed"), [("java", "21.88"), ("php", "26.63")])
def test_recorded_codex_summaries(language: str, printed: str, data_dir: Path) -> None:
    """The replication package of arXiv 2207.04237 gives these with CodeXGLUE's evaluator."""
    folder = data_dir / "generations" / "code2text" / language
    items = METRICS.measure(tsv(folder / "test.gold"), tsv(folder / "codex_10shot.output"), meteor=False)
    assert f"{METRICS.aggregate('bleu4_codexglue', column(items, 'bleu4_codexglue')):.2f}" == printed


def test_sample_files_of_codexglues_evaluator() -> None:
    """reference.txt and predictions.txt of microsoft/CodeXGLUE (MIT), for which its evaluator prints this."""
    references = [
        "Outputs the deferred summary information saved via",
        "Inspect the file referenced in the kubectl stderr to make it easier for developer to understand what s "
        "going on",
        "make sure to never prune the ejson - keys secret",
        "Determine the best compressor for the current system . This method returns the class not an instance of the "
        "class .",
        "Create the bff file using + mkinstallp + .",
    ]
    summaries = [
        "Prints a summary message",
        "Finds the output from the output file",
        "Verify that the given JSON element is present .",
        "Determines the specified compression compression .",
        "Creates a new project .",
    ]
    items = METRICS.measure(references, summaries, meteor=False)
    assert METRICS.aggregate("bleu4_codexglue", column(items, "bleu4_codexglue")) == pytest.approx(
        9.554726113590661, abs=1e-12
    )


def test_six_variants_of_the_literature() -> None:
    """What the program of Shi et al. (metrics/evaluate.py, NLTK 3.2.4) gives for these pairs. It counts a summary of
    one word as 0 in BLEU-DC, which is undone here: the paper's own table leaves them out."""
    pairs = [
        ("Returns the sum of two numbers .", "Return the sum of the two numbers ."),
        ("Opens a file for reading , and locks it .", "opens a file"),
        ("Checks whether the list is empty .", "checks"),
        ("the cat sat on the mat", "the cat sat on the mat"),
        ("Parses an ISO-8601 date , such as 2020-01-31 .", "Parses a date such as 2020-01-31 or 1.5e3 ."),
        ("Removes all <b>tags</b> &amp; entities", "Removes all tags & entities from the text"),
        ("Writes the header row", "a b c"),
        ("Größe der Datei in Bytes .", "Größe einer Datei ."),
        ("Saves it", ""),
    ]
    printed = {
        "bleu_dm": 34.74248526404302,
        "bleu_fc": 20.41381254632601,
        "bleu_dc": 22.935164038346333 * 9 / 8,
        "bleu_cn": 33.278932370637634,
        "bleu_ncs": 29.04605931732782,
        "bleu_rc": 11.112424042966891,
    }
    items = METRICS.measure(*zip(*pairs, strict=True), meteor=False)
    assert {name: METRICS.aggregate(name, column(items, name)) for name in printed} == pytest.approx(printed, abs=1e-9)


def test_meteor_of_nltks_doctests(nltk_data: None) -> None:
    meteor = load("meteor").meteor
    guide = "It is a guide to action which ensures that the military always obeys the commands of the party"
    expected = "It is a guide to action that ensures that the military will forever heed Party commands"
    assert round(meteor(expected.split(), guide.split()), 4) == 0.6944
    assert meteor(["this", "is", "a", "cat"], ["non", "matching", "hypothesis"]) == 0.0


def test_sacrebleus_signatures() -> None:
    from sacrebleu.metrics import BLEU, CHRF

    for metric, name in ((BLEU(), "bleu4_sacrebleu"), (CHRF(word_order=2), "chrfpp")):
        metric.corpus_score(["a"], [["a"]])
        signature = str(metric.get_signature()).rpartition("|version:")[0]
        assert METRICS.METRICS[name].source == f"sacrebleu, {signature}"


# -- the libraries ----------------------------------------------------------------------------------------------


def test_nltks_bleu(texts: tuple[list[str], list[str]]) -> None:
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu, sentence_bleu

    references, summaries = [[[text.split() for text in side] for side in texts]][0]
    items = METRICS.measure(*texts, meteor=False)
    smoothing = SmoothingFunction()
    names = {"bleu4_nltk": None, **{f"bleu4_nltk_method{k}": getattr(smoothing, f"method{k}") for k in (1, 2, 3, 4)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, method in names.items():
            pairs = zip(references, summaries, strict=True)
            close(column(items, name), [100 * sentence_bleu([r], s, smoothing_function=method) for r, s in pairs])
        corpus = 100 * corpus_bleu([[r] for r in references], summaries)
    close(METRICS.aggregate("bleu_fc", column(items, "bleu_fc")), corpus)
    close(column(items, "bleu4_nltk_fraction"), np.array(column(items, "bleu4_nltk")) / 100)


def test_sacrebleu(texts: tuple[list[str], list[str]]) -> None:
    import sacrebleu

    references, summaries = texts
    items = METRICS.measure(*texts, meteor=False)
    corpus = sacrebleu.corpus_bleu(summaries, [references]).score
    close(METRICS.aggregate("bleu4_sacrebleu", column(items, "bleu4_sacrebleu")), corpus)
    corpus = sacrebleu.corpus_chrf(summaries, [references], word_order=2).score
    close(METRICS.aggregate("chrfpp", column(items, "chrfpp")), corpus)
    for suffix, change in (("", str), ("_normalised", load("bleu").normalised)):
        pairs = [(change(r), change(s)) for r, s in zip(references, summaries, strict=True)]
        expected = [sacrebleu.sentence_chrf(s, [r], word_order=2).score for r, s in pairs]
        close(column(items, f"chrfpp_sentence{suffix}"), expected)


def test_rouge_score(texts: tuple[list[str], list[str]]) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    expected = [100 * scorer.score(r, s)["rougeL"].fmeasure for r, s in zip(*texts, strict=True)]
    close(column(METRICS.measure(*texts, meteor=False), "rouge_l"), expected)


def test_nltks_meteor(texts: tuple[list[str], list[str]], nltk_data: None) -> None:
    from nltk.tokenize import word_tokenize
    from nltk.translate.meteor_score import meteor_score

    items = METRICS.measure(*texts)
    normalised = load("bleu").normalised
    for name, cut in (
        ("meteor", word_tokenize),
        ("meteor_whitespace", str.split),
        ("meteor_normalised", lambda text: word_tokenize(normalised(text))),
    ):
        close(column(items, name), [100 * meteor_score([cut(r)], cut(s)) for r, s in zip(*texts, strict=True)])


def test_words_are_nltks(texts: tuple[list[str], list[str]], nltk_data: None) -> None:
    from nltk.tokenize import word_tokenize

    meteor = load("meteor")
    more = ["a , b : c", "wanna go .", "x, y. z", "Cannot (do) this !", "3, 4, 5.", "e . g .", "a .", "a -", "x,y , z"]
    more += ["a - b -- c", "a-b/c d--e", "[ x ] { y } < z > @ # $ % & * + / = | ^ ~ `", "5 - 3 .", "` ` a", "a / . b"]
    more += ["x. ( y )", "foo ) .", "foo . )", "( a , b ) . . .", ". . a", "- - a", "a ,", "a,", "Mr. X", "a? b", "? a"]
    for text in (*texts[0], *texts[1], *more):
        assert meteor.words(text) == word_tokenize(text), text


def test_words_of_sacrebleu_and_codexglue(texts: tuple[list[str], list[str]]) -> None:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    bleu, tokenize = load("bleu"), Tokenizer13a()
    more = ["a.b,c 1,000.5 -x 3-4 5.-,.6 &amp;lt; &quot;a&quot;", "__init__ self._x_ == 'y'.", "a&lt;b , . ..,,"]
    for text in (*texts[0], *texts[1], *more):
        assert bleu.sacrebleu_words(text) == tokenize(text.rstrip()).split(), text
        parted = " ".join(re.findall(r"\w+|[^\s\w]", text.strip().lower()))  # as CodeXGLUE's evaluator begins
        assert bleu.codexglue_words(text) == bleu.codenn_words(parted), text


def test_normalised_text() -> None:
    normalised = load("bleu").normalised
    assert normalised('```python\n"Returns  &lt;b&gt; &amp; more. "\n```') == "Returns <b> & more"
    assert [normalised(text) for text in ("One. Two..", "a .", "", "'''x'''", "Don't")] == [
        *("One. Two.", "a", "", "x", "Don't")
    ]


# -- many at once -----------------------------------------------------------------------------------------------


def test_every_metric_is_there_and_says_what_it_is(nltk_data: None) -> None:
    items = METRICS.measure(REFERENCES, SUMMARIES)
    assert all(list(item) == list(METRICS.METRICS) for item in items)
    assert json.loads(json.dumps(items))[0]["bleu4_codexglue"] == items[0]["bleu4_codexglue"]
    for name, metric in METRICS.METRICS.items():
        assert metric.description
        assert metric.source
        value = METRICS.aggregate(name, column(items, name))
        assert 0 <= value <= (1 if name.endswith("_fraction") else 100)
        assert (metric.aggregation == "corpus") == isinstance(items[0][name], tuple)


def test_processes_change_no_number() -> None:
    references, summaries = REFERENCES * 150, SUMMARIES * 150
    alone = METRICS.measure(references, summaries, 1, meteor=False)
    assert METRICS.measure(references, summaries, 3, meteor=False) == alone
    assert list(alone[:20]) == list(METRICS.measure(REFERENCES, SUMMARIES, meteor=False))
    assert METRICS.measure([], [], meteor=False) == []


def test_vocabularies_too_large_for_one_number() -> None:
    """Every word another: n-grams no longer fit into one number and are numbered anew."""
    texts = [" ".join(f"w{i}x{j}" for j in range(400)) for i in range(300)]
    counts = load("overlaps").word_counts([t.split() for t in texts], [t.split() for t in texts], 4)
    assert (counts.matches == [400, 399, 398, 397]).all()


def test_intervals_are_those_of_metrics_computed_again(data_dir: Path) -> None:
    import sacrebleu

    folder = data_dir / "generations" / "code2text" / "java"
    references, summaries = tsv(folder / "test.gold")[:80], tsv(folder / "codex_10shot.output")[:80]
    items = METRICS.measure(references, summaries, meteor=False)
    found = METRICS.intervals(items, ["chrfpp", "bleu4_sacrebleu", "rouge_l"], samples=20, seed=3)
    drawn = np.random.default_rng(3).integers(80, size=(20, 80))
    again: dict[str, list[float]] = {"chrfpp": [], "bleu4_sacrebleu": [], "rouge_l": []}
    for rows in drawn:
        said, expected = [summaries[i] for i in rows], [references[i] for i in rows]
        again["chrfpp"].append(sacrebleu.corpus_chrf(said, [expected], word_order=2).score)
        again["bleu4_sacrebleu"].append(sacrebleu.corpus_bleu(said, [expected]).score)
        again["rouge_l"].append(float(np.mean([items[i]["rouge_l"] for i in rows])))
    for name, values in again.items():
        close(found[name], np.percentile(values, [2.5, 97.5]))
    assert found == METRICS.intervals(items, list(found), samples=20, seed=3)
    assert found != METRICS.intervals(items, list(found), samples=20, seed=4)


# -- mixmerge score ---------------------------------------------------------------------------------------------

ROWS = [
    {"docstring_tokens": ["Returns", "a", "list", "."], "func_name": "Box.getList", "url": "https://x/1"},
    {"docstring_tokens": ["Opens", "the", "file"], "func_name": "openFile", "url": "https://x/2"},
    {"docstring_tokens": ["Adds", "two\nnumbers"], "func_name": "add", "url": "https://x/3"},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    return path


def write(path: Path, entries: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_recorded_summaries_from_the_command_line(data_dir: Path, tmp_path: Path, mixmerge: Cli) -> None:
    folder = data_dir / "generations" / "code2text" / "java"
    outputs = write(
        tmp_path / "o.jsonl",
        [{"id": i, "output": text} for i, text in enumerate(tsv(folder / "codex_10shot.output"))],
    )
    data = data_dir / "code2text" / "java" / "test.jsonl.gz"
    done = mixmerge(
        "score", "mm_code2text_java", outputs, "--data", data, "--json", env={"MIXMERGE_DATA": str(data_dir)}
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["task"], found["n"], found["rows"]) == ("mm_code2text_java", 1000, 1000)
    assert f"{found['metrics']['bleu4_codexglue']:.2f}" == "21.88"
    assert set(found["metrics"]) == set(found["intervals"]) == set(METRICS.METRICS)
    assert all(low <= found["metrics"][name] <= high for name, (low, high) in found["intervals"].items())
    assert set(found["references"]) == {"function name", "constant sentence"}
    assert found["below"] == {"function name": [], "constant sentence": []}
    copy = tmp_path / "codex_10shot.output"
    copy.write_bytes((folder / copy.name).read_bytes())
    done = mixmerge("score", "mm_code2text_java", copy, "--data", folder / "test.gold", "--json", "--workers", 1)
    again = json.loads(done.stdout)
    assert again["metrics"]["bleu4_codexglue"] == found["metrics"]["bleu4_codexglue"]
    assert set(again["references"]) == {"constant sentence"}  # the references' file holds no names


def test_a_text_a_line(tmp_path: Path) -> None:
    (tmp_path / "test.gold").write_text("returns a list\n[x] opens\nadds two numbers\n")
    (tmp_path / "test.pred").write_text("returns a list\n\nadds\n")
    found = score("mm_code2text_java", tmp_path / "test.pred", data=tmp_path / "test.gold")
    assert (found.summary["n"], found.summary["rows"]) == (3, 3)
    assert [found.file["eval"][str(row)][0]["output"] for row in range(3)] == ["returns a list", "", "adds"]
    (tmp_path / "test.tsv").write_text("2\tadds\tmore\n1\n")
    found = score("mm_code2text_java", tmp_path / "test.tsv", data=tmp_path / "test.gold")
    assert {id: tries[0]["output"] for id, tries in found.file["eval"].items()} == {"2": "adds", "1": ""}


def test_some_rows_by_their_own_ids_and_below_the_baselines(rows: Path, tmp_path: Path, mixmerge: Cli) -> None:
    outputs = write(tmp_path / "o.jsonl", [{"id": "https://x/2", "output": "nothing"}, {"id": "0", "output": "no"}])
    done = mixmerge("score", "mm_code2text_java", outputs, "--data", rows, "--json")
    found = json.loads(done.stdout)
    assert (found["n"], found["rows"]) == (2, 3)
    assert "bleu4_codexglue" in found["below"]["function name"]
    assert "rouge_l" in found["below"]["constant sentence"]
    text = mixmerge("score", "mm_code2text_java", outputs, "--data", rows).stdout
    assert "2 of 3 rows; 1 rows have no summary and are not counted" in text
    assert "below the function name by bleu4_codexglue, chrfpp, rouge_l" in text
    kept = tmp_path / "o.eval_results.json"
    assert json.loads(kept.read_text())["eval"]["1"][0]["output"] == "nothing"
    again = json.loads(mixmerge("score", "mm_code2text_java", kept, "--data", rows, "--json").stdout)
    assert again["metrics"] == found["metrics"]


def test_what_lm_eval_logged_goes_through_the_tasks_extraction(rows: Path, tmp_path: Path) -> None:
    logged = [{"doc": {"id": "1"}, "resps": [['```\n"Opens the file"\n```']], "filter": "measured"}]
    given = [{"id": 1, "output": '```\n"Opens the file"\n```'}]
    values = []
    for name, entries, sanitize in (("log", logged, False), ("raw", given, False), ("taken", given, True)):
        outputs = write(tmp_path / f"{name}.jsonl", entries)
        found = score("mm_code2text_java", outputs, data=rows, sanitize=sanitize).summary
        values.append(found["metrics"]["bleu4_codexglue"])
    assert values[0] == values[2] == pytest.approx(100)
    assert values[1] < 50


def test_what_is_wrong_with_outputs_is_said_by_line(rows: Path, tmp_path: Path) -> None:
    one = {"id": 0, "output": "a"}
    for entries, message in (
        ([one, {"id": 3, "output": "b"}], "o.jsonl:2: no problem has the id '3'"),
        ([one, {"id": -1, "output": "b"}], "o.jsonl:2: no problem has the id '-1'"),
        ([one, {"id": "https://x/1", "output": "b"}], "o.jsonl:2: a second summary for the id 0"),
        ([one, {"id": 1}], "o.jsonl:2: there is no solution, completion or output"),
        ([one, {"id": "", "output": "b"}], "o.jsonl:2: no problem has the id ''"),
        ([one, {"output": "b"}], "o.jsonl:2: there is no task_id"),
    ):
        with pytest.raises(SourceError) as error:
            score("mm_code2text_java", write(tmp_path / "o.jsonl", entries), data=rows)
        assert message in error.value.message
        assert error.value.hint
    gold = tmp_path / "gold.tsv"
    gold.write_text("0\ta\n1\tb\n0\tc\n")
    bare = write(tmp_path / "d.jsonl", [{"code": "x"}])
    binary = tmp_path / "rows.bin"
    binary.write_bytes(b"\xff\xfe\x00")
    for data, message in (
        (binary, "cannot read"),
        (gold, f"{gold}:3: a second reference for the id 0"),
        (bare, "d.jsonl: row 0 has no docstring_tokens"),
    ):
        with pytest.raises(SourceError) as error:
            score("mm_code2text_java", write(tmp_path / "o.jsonl", [one]), data=data)
        assert message in error.value.message


def test_without_wordnet_the_others_are_scored_and_it_is_said(rows: Path, tmp_path: Path, mixmerge: Cli) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    env = {"HOME": str(nowhere), "NLTK_DATA": str(nowhere), "MIXMERGE_DATA": str(nowhere)}
    look = "import nltk; print(any(__import__('os').path.isdir(p + '/corpora') for p in nltk.data.path))"
    found = subprocess.run([sys.executable, "-c", look], env={**os.environ, **env}, capture_output=True, text=True)
    if found.stdout.strip() != "False":
        pytest.skip("this system has an nltk_data folder of its own")
    outputs = write(tmp_path / "o.jsonl", [{"id": 1, "output": "Opens it"}])
    done = mixmerge("score", "mm_code2text_java", outputs, "--data", rows, "--json", env=env)
    scored = json.loads(done.stdout)
    missing = {name for name in METRICS.METRICS if name.startswith("meteor")}
    assert set(scored["missing"]) == missing
    assert set(scored["metrics"]) == set(METRICS.METRICS) - missing
    said = scored["missing"]["meteor"]
    assert "`python -m nltk.downloader wordnet` and `python -m nltk.downloader punkt_tab`" in said
    assert "not computed: meteor" in mixmerge("score", "mm_code2text_java", outputs, "--data", rows, env=env).stdout
    assert not list(nowhere.iterdir())  # nothing was downloaded
