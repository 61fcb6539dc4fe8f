"""`codexglue`, `kodcode` and `mbpp` in one line of a recipe, and the usual shapes of instruction data."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mixmerge import SourceError
from mixmerge.errors import RecipeError
from mixmerge.recipe import load
from mixmerge.registry import Registry
from mixmerge.sources import DataSpec, check_data, data_pins, load_rows, source_name
from mixmerge.sources.columns import Template

ROW = {"code": "func F() {\n}", "docstring": "// F does nothing."}


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


# CodeXGLUE


def test_two_languages_of_a_folder(data_dir: Path) -> None:
    source = f"codexglue:{data_dir / 'code2text'}"
    found = load_rows(DataSpec(source, languages=["python", "go"], split="test", format="chat"), seed=0)
    assert Counter(row["id"].split("/")[0] for row in found.rows) == {"python": 997, "go": 1000}
    assert found.notes == (
        "python: 1,000 of 14,918 published rows of split test",
        "python: 3 rows left out: answer is visible in the prompt",
        "go: 1,000 of 8,122 published rows of split test",
    )
    assert "C-UDA" in found.licence
    for row in found.rows:
        language = {"python": "Python", "go": "Go"}[row["id"].split("/")[0]]
        assert f"what this {language} function does" in row["prompt"][0]["content"]
    assert not any(row["completion"].startswith("//") for row in found.rows)


def test_files_of_a_folder_and_a_file(tmp_path: Path) -> None:
    write(tmp_path / "go/valid.jsonl", [ROW])
    write(tmp_path / "go/train.jsonl.gz", [ROW, {"code": "func G() {\n}", "docstring": "// G is empty.", "id": 7}])
    train = load_rows(DataSpec(f"codexglue:{tmp_path}", languages=["go"]), 0)
    assert sorted(row["id"] for row in train.rows) == ["go/train/0", "go/train/7"]
    file = f"codexglue:{tmp_path}/go/valid.jsonl"
    folder = DataSpec(f"codexglue:{tmp_path}", languages=["go"], split="validation")
    assert load_rows(folder, 0) == load_rows(DataSpec(file, languages=["go"], split="validation"), 0)
    assert data_pins(folder).keys() == {"go", "rules"}
    own = DataSpec(file, "{language}: {code}", "{docstring|strip}", languages=["go"], split="validation")
    write(tmp_path / "go/valid.jsonl", [{**ROW, "language": "go"}])
    assert load_rows(own, 0).rows[0]["prompt"] == "go: func F() {\n}"


@pytest.mark.parametrize("rows", [1260, 1261])
def test_a_hub_split_of_another_size_is_an_error(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a set in the hub's layout; Ruby's test split has 1,261 rows."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "set/ruby/test.jsonl", [{**ROW, "id": number} for number in range(rows)])
    (tmp_path / "set/README.md").write_text(
        "---\nconfigs:\n- config_name: ruby\n  data_files:\n  - {split: test, path: ruby/test.jsonl}\n---\n"
    )
    spec = DataSpec(f"codexglue:hf:{tmp_path}/set", languages=["ruby"], split="test")
    if rows == 1261:
        found = load_rows(spec, 0)
        assert (len(found.rows), found.notes) == (1261, ())
        return
    with pytest.raises(SourceError, match="ruby has 1,260 rows in split 'test', published are 1,261") as caught:
        load_rows(spec, 0)
    assert "revision" in caught.value.hint


def test_a_file_with_more_rows_than_published_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "ruby/test.jsonl", [ROW] * 1262)
    with pytest.raises(SourceError, match="1,262 rows"):
        load_rows(DataSpec(f"codexglue:{tmp_path}", languages=["ruby"], split="test"), 0)


@pytest.mark.parametrize(
    ("spec", "field", "message", "hint"),
    [
        ({"source": "codexglue"}, "languages", "codexglue needs 'languages'", "languages: [python, java]"),
        ({"source": "codexglue", "languages": ["pyhton"]}, "languages", "no language 'pyhton'", "did you mean python?"),
        ({"source": "codexglue", "languages": ["go", "go"]}, "languages", "'go' stands twice", ""),
        ({"source": "codexglue", "languages": ["go"], "split": "valid"}, "split", "no split 'valid'", "validation"),
        ({"source": "codexglue:nowhere", "languages": ["go"]}, "source", "there is no file nowhere", "path"),
        ({"source": "codexglue:x.jsonl", "languages": ["go", "php"]}, "source", "is one file, but there are 2", "each"),
        ({"source": "codexgleu"}, "source", "unknown data source", "did you mean codexglue?"),
        ({"source": "CodeXGLUE"}, "source", "unknown data source", "did you mean codexglue?"),
        ({"source": "hf:a/b", "languages": ["go"]}, "languages", "takes no languages", "codexglue"),
        ({"source": "mbpp", "split": "dev"}, "split", "no split 'dev'", "train, validation, test, prompt"),
        ({"source": "mbpp:nowhere.jsonl"}, "source", "there is no file nowhere.jsonl", "path"),
        ({"source": "kodcode:rows.txt"}, "source", "there is no file rows.txt", "path"),
        ({"source": "hf:a/b", "limit": 0}, "limit", "limit is 0", "from 1"),
        ({"source": "hf:a/b", "prompt": "{a|b}"}, "prompt", "unknown change 'b'", "without_docstring"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    spec: dict[str, Any], field: str, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (found,) = check_data(DataSpec(**spec))
    assert found.field == field
    assert message in found.message
    assert hint in found.hint
    for ask in (data_pins, lambda of: load_rows(of, 0)):
        with pytest.raises(SourceError) as caught:
            ask(DataSpec(**spec))
        assert caught.value.message == found.message


def test_a_folder_without_the_split(tmp_path: Path) -> None:
    write(tmp_path / "go/test.jsonl", [ROW])
    (found,) = check_data(DataSpec(f"codexglue:{tmp_path}", languages=["go", "php"]))
    assert "has no go/train.jsonl.gz, no php/train.jsonl.gz" in found.message
    assert "split 'train'" in found.hint
    write(tmp_path / "go/test.jsonl", [{"code": "x"}])
    with pytest.raises(SourceError, match="rows of go have no column 'docstring'"):
        load_rows(DataSpec(f"codexglue:{tmp_path}", languages=["go"], split="test"), 0)
    write(tmp_path / "go/test.jsonl", [{**ROW, "language": "php"}])
    with pytest.raises(SourceError, match="rows said to be go are php"):
        load_rows(DataSpec(f"codexglue:{tmp_path}", languages=["go"], split="test"), 0)


def test_every_problem_of_a_recipe_with_its_line(toy_recipe: Path) -> None:
    text = toy_recipe.read_text()
    line = next(line for line in text.splitlines() if line.strip().startswith("gen:"))
    number = text.splitlines().index(line) + 1
    questions = write(toy_recipe.parent / "questions.jsonl", [{"instruction": "a", "reply": "b"}])
    bad = [
        "  gen:",
        "    source: codexglue",
        "    languages: [pyhton]",
        "    split: tets",
        "  more: {source: codexglue}",
        f"  own: {{source: {questions}, prompt: instruction, answer: replay}}",
    ]
    toy_recipe.write_text(text.replace(line, "\n".join(bad)))
    with pytest.raises(RecipeError) as caught:
        load(toy_recipe, Registry([str(Path(__file__).parent / "data/toy.py")]))
    told = str(caught.value)
    for offset, what in (
        (2, "no language 'pyhton'"),
        (3, "no split 'tets'"),
        (4, "needs 'languages'"),
        (5, "has no column 'replay'"),
    ):
        assert any(f":{number + offset}:" in line and what in line for line in told.splitlines()), (what, told)


# KodCode


def test_kodcode_takes_what_passed_its_tests(data_dir: Path) -> None:
    path = data_dir / "kodcode/SFT_KodCode_algorithm_100_1741212598.json"
    given = json.loads(path.read_text())
    found = load_rows(DataSpec(f"kodcode:{path}"), seed=0)
    wanted = {(row["question"], row["solution"]) for row in given if row["r1_correctness"] == "True"}
    assert {(row["prompt"], row["completion"]) for row in found.rows} == wanted
    assert len(found.rows) == 23
    assert found.notes == ("8 rows left out: r1_correctness is not True",)
    assert found.licence == "CC BY-NC 4.0"
    assert all(row["id"].startswith("kodcode/Algorithm_") for row in found.rows)
    every = DataSpec(f"kodcode:{path}", answer="r1_solution", where={"r1_correctness": ["True", "False"]})
    assert len(load_rows(every, seed=0).rows) == 31


def test_kodcode_with_the_solutions_of_one_model(tmp_path: Path) -> None:
    """The columns of KodCode-V1-SFT-4o."""
    row = {"question_id": "Prefill_1_C", "question": "Add.", "4o_solution": "a + b", "4o_correctness": "True"}
    path = write(tmp_path / "rows.jsonl", [row, {**row, "4o_correctness": "False"}, {**row, "4o_correctness": None}])
    for answer in (None, "4o_solution"):
        (only,) = load_rows(DataSpec(f"kodcode:{path}", answer=answer), seed=0).rows
        assert only == {"id": "kodcode/Prefill_1_C", "prompt": "Add.", "completion": "a + b"}
    write(path, [{"question": "Add.", "solution": "a + b"}])
    assert load_rows(DataSpec(f"kodcode:{path}"), seed=0).notes == ("1 rows do not say whether their tests passed",)


# MBPP


@pytest.mark.parametrize(
    ("split", "first", "last", "count"),
    [("train", 601, 974, 374), ("validation", 511, 600, 90), ("test", 11, 510, 500), ("prompt", 1, 10, 10)],
)
def test_mbpp_splits_by_id(data_dir: Path, split: str, first: int, last: int, count: int) -> None:
    found = load_rows(DataSpec(f"mbpp:{data_dir / 'mbpp/mbpp.jsonl'}", split=split), seed=0)
    ids = sorted(int(row["id"].removeprefix("mbpp/")) for row in found.rows)
    assert ids == list(range(first, last + 1))
    assert len(ids) == count
    assert (found.licence, found.notes) == ("CC BY 4.0", ())


def test_mbpp_prompt(data_dir: Path) -> None:
    spec = DataSpec(f"mbpp:{data_dir / 'mbpp/mbpp.jsonl'}", split="prompt", where={"task_id": 2})
    (row,) = load_rows(spec, seed=0).rows
    assert row["prompt"].startswith(
        "Write a function to find the similar elements from the given two tuple lists.\n"
        "Your code should pass these tests:\n\n"
        "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)\n"
    )
    assert row["completion"] == (
        "def similar_elements(test_tup1, test_tup2):\n  res = tuple(set(test_tup1) & set(test_tup2))\n  return (res) "
    )
    sanitized = load_rows(DataSpec(f"mbpp:{data_dir / 'mbpp/sanitized-mbpp.json'}"), seed=0)
    assert sanitized.notes == ("120 of the 374 problems of split train (ids 601 to 974)",)
    assert all("\r" not in row["prompt"] + row["completion"] for row in sanitized.rows)


def test_the_gate_knows_mbpp_by_its_name(data_dir: Path) -> None:
    """MBPP's train split holds 108 of the problems of MBPP+, whatever the file is called."""
    assert source_name("mbpp") == source_name("mbpp:data/rows.json") == source_name("mbpp:hf:a/b") == "mbpp"
    train = load_rows(DataSpec(f"mbpp:{data_dir / 'mbpp/mbpp.jsonl'}"), seed=0)
    plus = gzip.decompress((data_dir / "mbpp_plus/MbppPlus.jsonl.gz").read_bytes()).splitlines()
    ids = {json.loads(line)["task_id"].lower() for line in plus}
    assert len(ids & {row["id"] for row in train.rows}) == 108


# Instruction data


@pytest.mark.parametrize("empty", ["", None, "  \n"])
def test_an_empty_input_leaves_no_trace(tmp_path: Path, empty: str | None) -> None:
    rows = [
        {"instruction": "Say hello.", "input": empty, "output": "Hello."},
        {"instruction": "Say it back.", "input": "moon", "output": "Moon."},
    ]
    path = write(tmp_path / "alpaca.jsonl", rows)
    for own in ({}, {"prompt": "{instruction}\n\n{input}", "answer": "output"}):
        found = load_rows(DataSpec(str(path), **own), seed=0)  # type: ignore[arg-type]
        assert {row["prompt"] for row in found.rows} == {"Say hello.", "Say it back.\n\nmoon"}
        assert found.notes == ()


def test_templates_with_empty_columns() -> None:
    template = Template("{a}\n\nInput: {b}\n\n{c}\nEnd")
    assert template.fill({"a": "x", "b": "y", "c": "z"}) == "x\n\nInput: y\n\nz\nEnd"
    assert template.fill({"a": "x", "b": "y", "c": ""}) == "x\n\nInput: y\nEnd"
    assert Template("{a}\n\n{b}").fill({"a": "", "b": " y\n"}) == " y\n"
    assert Template("{a}\n\nEnd").fill({"a": None}) is None
    assert Template("{{{a}}}\n").fill({"a": "x"}) == "{x}\n"


def test_a_row_may_lack_an_optional_column(tmp_path: Path) -> None:
    rows = [{"instruction": "Say hello.", "output": "Hello."}, {"instruction": "Twice", "input": "x", "output": "xx"}]
    spec = DataSpec(str(write(tmp_path / "a.jsonl", rows)), "{instruction}\n\n{input}", "output")
    assert check_data(spec) == []
    assert {row["prompt"] for row in load_rows(spec, seed=0).rows} == {"Say hello.", "Twice\n\nx"}


def test_gpteacher_in_one_line(data_dir: Path) -> None:
    found = load_rows(DataSpec(str(data_dir / "gpteacher/codegen-instruct.json")), seed=0)
    assert len(found.rows) == 4535
    given = json.loads((data_dir / "gpteacher/codegen-instruct.json").read_text())
    alone = {row["instruction"] for row in given if not row["input"]}
    assert sum(row["prompt"] in alone for row in found.rows) >= 955


CHAT = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Bye"), ("assistant", "So long.")]


def api(messages: list[tuple[str, str]]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in messages]}


def sharegpt(messages: list[tuple[str, str]]) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return {"conversations": [{"from": names[role], "value": text} for role, text in messages]}


@pytest.mark.parametrize("shape", [api, sharegpt])
def test_every_answer_of_a_conversation_is_a_row(
    tmp_path: Path, shape: Callable[[list[tuple[str, str]]], Mapping[str, Any]]
) -> None:
    rows = [shape(CHAT), shape(CHAT[1:3]), shape(CHAT[1:2]), shape([CHAT[1], CHAT[1], CHAT[2]])]
    path = write(tmp_path / "chat.jsonl", rows)
    found = load_rows(DataSpec(str(path), format="chat"), seed=0)
    assert {(row["id"], row["completion"], len(row["prompt"])) for row in found.rows} == {
        ("0/2", "Hello.", 2),
        ("0/4", "So long.", 4),
        ("2", "Hello.", 1),
    }
    last = next(row for row in found.rows if row["completion"] == "So long.")
    assert [(message["role"], message["content"]) for message in last["prompt"]] == CHAT[:4]
    assert found.notes == ("conversations left out because user and assistant do not take turns in them: 2",)
    named = DataSpec(str(path), prompt=next(iter(rows[0])), format="chat")
    assert load_rows(named, seed=0).rows == found.rows
    (problem,) = check_data(DataSpec(str(path)))
    assert "holds conversations" in problem.message
    assert "format: chat" in problem.hint


def test_kodcode_without_its_name_is_a_conversation(data_dir: Path) -> None:
    path = data_dir / "kodcode/SFT_KodCode_leetcode_100_1741214688.json"
    found = load_rows(DataSpec(str(path), format="chat"), seed=0)
    assert len(found.rows) == 27
    assert all([message["role"] for message in row["prompt"]] == ["user"] for row in found.rows)
