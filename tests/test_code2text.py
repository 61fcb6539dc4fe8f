"""Summarising code, and what the paper's recipes train on: tasks ask what training asks, and say what they measure."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixmerge import SourceError
from mixmerge.sources import DataSpec, code2text, load_rows

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tasks" / "mm_code2text"
LANGUAGES = [*code2text.LANGUAGES]
SUFFIXES = ["", "_chat", "_subset", "_subset_chat", "_dev", "_dev_chat"]
LEFT_OUT = {"python": 3, "java": 0, "javascript": 5, "php": 2, "ruby": 0, "go": 0}
"""Of the first 1,000 test rows, those whose summary stands in a comment or a message of the code, seen by eye."""


def load() -> Any:
    spec = importlib.util.spec_from_file_location("mm_code2text_utils_tested", FOLDER / "utils.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


UTILS = load()


@pytest.fixture
def local_data(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIXMERGE_DATA", str(data_dir))
    return data_dir


@pytest.fixture
def few(local_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty rows of each language to test on and forty others to choose on, as a user lays them out."""
    for language in LANGUAGES:
        place = tmp_path / "code2text" / language
        place.mkdir(parents=True)
        lines = gzip.decompress((local_data / "code2text" / language / "test.jsonl.gz").read_bytes()).splitlines(True)
        (place / "test.jsonl").write_bytes(b"".join(lines[:40]))
        (place / "valid.jsonl").write_bytes(b"".join(lines[40:80]))
    (tmp_path / "nltk_data").symlink_to(local_data / "nltk_data")
    monkeypatch.setenv("MIXMERGE_DATA", str(tmp_path))
    UTILS.rows._test_and_dev.cache_clear()
    yield tmp_path
    UTILS.rows._test_and_dev.cache_clear()


def tasks(*names: str, **metadata: Any) -> Mapping[str, Any]:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(ROOT / "tasks"), include_defaults=False, metadata=metadata)
    found: Mapping[str, Any] = manager.load(list(names))["tasks"]
    return found


# -- which functions ----------------------------------------------------------------------------------------------


def test_every_language_has_every_task() -> None:
    parts = ["", *(f"_{language}" for language in LANGUAGES)]
    expected = {f"mm_code2text{part}{suffix}" for part in parts for suffix in SUFFIXES}
    assert {file.stem for file in FOLDER.glob("*.yaml")} == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language(language: str, local_data: Path) -> None:
    names = [f"mm_code2text_{language}{suffix}" for suffix in SUFFIXES]
    found = tasks(*names)
    ids = {name: [doc["id"] for doc in found[name].eval_docs] for name in names}
    whole, subset, dev = (set(ids[f"mm_code2text_{language}{part}"]) for part in ("", "_subset", "_dev"))
    assert len(whole) + len(dev) == 1000 - LEFT_OUT[language]
    assert (len(subset), len(dev)) == (500, 200)
    assert subset < whole
    assert not whole & dev
    assert all(ids[name] == ids[f"{name}_chat"] for name in names if not name.endswith("_chat"))
    text = gzip.decompress((local_data / "code2text" / language / "test.jsonl.gz").read_bytes()).decode()
    tokens = [json.loads(line)["docstring_tokens"] for line in text.splitlines()]
    for doc in found[names[0]].eval_docs:
        assert doc["reference"].split() == " ".join(tokens[int(doc["id"])]).split()


def test_the_recorded_references_are_ours(local_data: Path) -> None:
    """CodeXGLUE's evaluator compared Codex' summaries with these files."""
    for language in ("java", "php"):
        gold = (local_data / "generations" / "code2text" / language / "test.gold").read_text("utf-8").splitlines()
        expected = [line.partition("\t")[2].strip() for line in gold]
        assert [UTILS.rows.reference(row) for row in UTILS.rows.all_rows(language, "test")] == expected


def test_a_drawn_subset_is_spread_evenly(local_data: Path) -> None:
    whole = UTILS.rows.documents("java", "test", "completion")
    drawn = UTILS.rows.drawn(whole, 400)
    for length, unit in ((lambda doc: len(doc["reference"].split()), 1), (lambda doc: len(doc["code"]), 2)):
        of_whole, of_drawn = (sorted(map(length, docs)) for docs in (whole, drawn))
        for share in (0.1, 0.3, 0.5, 0.7, 0.9):
            expected = of_whole[int(share * len(whole))]
            assert of_drawn[int(share * 400)] == pytest.approx(expected, abs=unit, rel=0.04)
    assert UTILS.rows.drawn(whole, 400) == drawn  # the seed decides
    assert UTILS.rows.drawn(drawn, 400) == drawn


def test_no_docstring_and_no_summary_is_in_a_prompt(local_data: Path) -> None:
    for language in LANGUAGES:
        for doc in UTILS.rows.documents(language, "test", "completion"):
            assert not code2text.visible(doc["completion"], doc["prompt"])


def test_rows_that_are_left_out_are_counted(few: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = {
        "code": "def f(x):\n    # Add two big numbers\n    return x",
        "docstring": "Add two big numbers.",
        "func_name": "f",
    }
    file = few / "code2text" / "python" / "test.jsonl"
    file.write_text(file.read_text() + json.dumps({**row, "docstring_tokens": row["docstring"].split()}) + "\n")
    assert len(UTILS.rows.documents("python", "test", "chat")) == 40
    assert "code2text python, test: 1 of 41 rows left out (answer is visible in the prompt: 1)" in caplog.text


@pytest.mark.parametrize("name", ["mm_code2text_python", "mm_code2text_go_dev_chat"])
def test_missing_data_is_one_clear_error(
    name: str, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nltk_data").symlink_to(data_dir / "nltk_data")
    monkeypatch.setenv("MIXMERGE_DATA", str(tmp_path))
    with pytest.raises(SourceError, match="there is no file") as error:
        tasks(name)
    assert "$MIXMERGE_DATA" in error.value.hint
    assert "hub" in error.value.hint


# -- how they are asked -------------------------------------------------------------------------------------------


def test_prompts(few: Path) -> None:
    found = tasks("mm_code2text_php", "mm_code2text_php_chat")
    asked = {name: task.doc_to_text(task.eval_docs[0]) for name, task in found.items()}
    code = found["mm_code2text_php"].eval_docs[0]["code"]
    assert (
        asked["mm_code2text_php"] == f"{code}\n\nSummarise what this PHP function does, in the words of its docstring:"
    )
    assert asked["mm_code2text_php_chat"].endswith(f"Answer with that sentence alone.\n\n```php\n{code}\n```")


@pytest.mark.parametrize("suffix", ["", "_dev"])
def test_examples_come_from_what_is_chosen_on_and_never_show_the_function(suffix: str, few: Path) -> None:
    task = tasks(f"mm_code2text_ruby{suffix}")[f"mm_code2text_ruby{suffix}"]
    dev = {doc["prompt"]: doc["completion"] for doc in UTILS.rows.documents("ruby", "dev", "completion")}
    assert task.config.num_fewshot is None  # lm-eval takes a 0 there for an order, and --num_fewshot for nothing
    task.set_fewshot_seed(1)
    for doc in list(task.eval_docs)[:10]:
        text = task.fewshot_context(doc, 39 if suffix else 3)
        *examples, last = text.split("in the words of its docstring:")
        assert last == ""
        shown = [f"{prompt}\n{answer}\n\n" for prompt, answer in dev.items() if f"{prompt}\n{answer}\n\n" in text]
        assert len(shown) == len(examples) - 1
        assert text.count(doc["prompt"]) == 1


@pytest.mark.parametrize("recipe", ["deepseek1.3b", "deepseek7b", "qwen1.5b", "qwen7b", "qwen14b"])
def test_recipes_train_on_what_the_tasks_ask(recipe: str, few: Path) -> None:
    content = yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text())
    assert content["eval"]["choose_on"][-1] == "mm_code2text_python_dev_chat"
    assert content["eval"]["report_on"][-1] == "mm_code2text_python_chat"
    entry = {**content["data"]["sum"], "source": f"codexglue:{few / 'code2text'}", "split": "test"}
    rows = {row["prompt"][0]["content"]: row["completion"] for row in load_rows(DataSpec(**entry), 0).rows}
    assert rows == {doc["prompt"]: doc["completion"] for doc in UTILS.rows.documents("python", "test", "chat")}


def test_decoding_is_the_tasks(few: Path) -> None:
    settings = [task.config.generation_kwargs for task in tasks("mm_code2text", "mm_code2text_dev_chat").values()]
    assert len(settings) == 12
    assert all(each == settings[0] for each in settings)
    assert settings[0]["repetition_penalty"] == 1.0
    assert settings[0]["do_sample"] is False


def test_summaries_come_out_of_fences_and_quotes() -> None:
    for response in (
        "Add two\nnumbers.\n\nMore.",
        '\n"""Add two numbers."""',
        '```python\n"""\nAdd two numbers.\n"""\n```',
        'Sure! Here is the summary:\n```\n"Add two numbers."\n```\nI hope that helps.',
        "Here it is:\n\nAdd two numbers.\n\nMore.",
    ):
        assert UTILS.summary_of(response) == "Add two numbers."
    assert UTILS.summary_of("Add:") == "Add:"
    assert UTILS.summary_of("``` \n```") == ""


# -- what is measured ---------------------------------------------------------------------------------------------


def test_the_yaml_lists_what_is_measured(few: Path) -> None:
    task = tasks("mm_code2text_java")["mm_code2text_java"]
    docs = list(task.eval_docs)[:3]
    found = UTILS.measure([["Sort it."], [""], [docs[2]["reference"]]], docs)
    assert [*task.aggregation()] == [*UTILS.read(docs[0], found[:1])]
    assert all(task.higher_is_better().values())
    assert task.config.metadata["primary"] == "bleu4_codexglue"
    assert [each[0]["summary"] for each in found] == ["Sort it.", "", docs[2]["reference"]]
    assert found[2][0]["bleu4_codexglue"] == pytest.approx(100)
    assert found[1][0]["rouge_l"] == 0
    trivial = found[0][0]["rouge_l@function name"]
    name = UTILS.baselines.name_in_words(docs[0]["name"])
    assert trivial == 100 * UTILS.metrics.rouge_l(docs[0]["reference"], name)


def test_without_wordnet_a_task_says_so_before_anything_is_generated(few: Path) -> None:
    """In a process of its own: NLTK reads its search path once."""
    (few / "nltk_data").unlink()
    program = f"""
from lm_eval.tasks import TaskManager
import nltk
nltk.data.path[:] = []
from mixmerge import SourceError
for metadata in ({{"meteor": False}}, {{}}):
    manager = TaskManager(include_path={str(ROOT / "tasks")!r}, include_defaults=False, metadata=metadata)
    try:
        task = manager.load(["mm_code2text_go"])["tasks"]["mm_code2text_go"]
        measure = task.config.filter_list[0]["filter"][0]["filter_fn"]
        docs = list(task.eval_docs)[:2]
        print(sorted(task.process_results(docs[0], measure([["a"], ["b"]], docs)[:1])))
    except SourceError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    without, error = done.stdout.strip().split("\n", 1)
    assert "rouge_l" in without
    assert "meteor" not in without
    assert "METEOR cannot be computed" in error
    assert error.count("python -m nltk.downloader") == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Box.parseHTTPHeader2", "parse http header 2"),
        ("log_message", "log message"),
        ("UiBibz::Ui::Core::Boxes.Card.footer", "footer"),
        ("HDF5Storage._trj_fill", "trj fill"),
        ("Map.[]=", ""),
        ("", ""),
    ],
)
def test_a_functions_name_in_words(name: str, words: str) -> None:
    assert UTILS.baselines.name_in_words(name) == words


def test_plain_lm_eval_and_mixmerge_agree(few: Path, tiny_model_dir: Callable[..., Path], tmp_path: Path) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    from mixmerge import Checkpoint
    from mixmerge.plugins import lm_eval as plugin

    path = Path(shutil.copytree(tiny_model_dir(seed=0), tmp_path / "model"))
    (path / "generation_config.json").write_text('{"repetition_penalty": 5.0, "eos_token_id": 0}')
    names = ["mm_code2text_java", "mm_code2text_go_chat"]
    kwargs = {"until": ["\n\n\n"], "max_gen_toks": 16, "do_sample": False, "repetition_penalty": 1.0}
    plain = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(path), "dtype": "float32"},
        device="cpu",
        tasks=names,
        task_manager=TaskManager(include_path=str(ROOT / "tasks"), include_defaults=False),
        limit=3,
        batch_size=3,
        bootstrap_iters=0,
        gen_kwargs=kwargs,
    )["results"]
    scores = plugin.evaluate.function(
        Checkpoint("m", path, "m"), names, tmp_path, 1, dtype="float32", limit=3, gen_kwargs=kwargs
    )
    assert len(scores) == 2 * (len(UTILS.MEASURED) + 2 * len(UTILS.scoring.COMPARED))
    for score in scores:
        name = f"{score.metric}@{score.reference}" if score.reference else score.metric
        assert score.value == pytest.approx(plain[score.task][f"{name},measured"], rel=1e-9), name
    assert {score.primary for score in scores if score.metric == "bleu4_codexglue" and not score.reference} == {True}
    assert not any(score.asked for score in scores)


def test_what_was_logged_of_a_dev_task_is_scored_on_its_own_rows(few: Path) -> None:
    from mixmerge import scoring

    docs = UTILS.rows.documents("java", "dev", "chat")[:5]
    log = few / "samples.jsonl"
    lines = [{"doc": doc, "resps": [[f"Here it is:\n\n{doc['reference']}"]], "filter": "measured"} for doc in docs]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = scoring.score("mm_code2text_java_dev_chat", log).summary
    assert (found["n"], found["rows"], found["empty"]) == (5, 40, 0)
    assert found["metrics"]["bleu4_codexglue"] == pytest.approx(100)
    assert scoring.score("mm_code2text_java_chat", log).summary["metrics"]["bleu4_codexglue"] < 50


def test_the_gate_knows_a_function_by_its_split_and_number(few: Path) -> None:
    from mixmerge import contamination
    from mixmerge.plugins import lm_eval as plugin

    documents = plugin.contents(["mm_code2text_java"])["mm_code2text_java"]
    assert not isinstance(documents, str)
    spec = DataSpec(f"codexglue:{few / 'code2text'}", languages=("java",), split="test")
    for split, expected in (("test", 40), ("train", 0)):
        rows = [{**row, "id": row["id"].replace("/test/", f"/{split}/")} for row in load_rows(spec, 0).rows]
        hits = contamination.compare(rows, "codexglue", {"mm_code2text_java": documents})
        assert sum(hit.rule == "id" for hit in hits) == expected


def test_rows_of_another_split_are_refused(few: Path) -> None:
    file = few / "code2text" / "java" / "test.jsonl"
    with pytest.raises(SourceError, match="rows said to be of split 'train' are of 'test'"):
        load_rows(DataSpec(f"codexglue:{file}", languages=("java",)), 0)
