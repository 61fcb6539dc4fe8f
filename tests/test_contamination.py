"""The rules of the gate: on cases, against a plain second implementation, and on MBPP, where the truth is known."""

from __future__ import annotations

import ast
import gzip
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mixmerge import contamination
from mixmerge.contamination import RULES, compare, normal_form, same_family, shape, words
from mixmerge.sources import benchmark_id
from mixmerge.types import Document

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


def row(prompt: str = "", completion: str = "", id: str = "0") -> dict[str, Any]:
    return {"id": id, "prompt": prompt, "completion": completion}


def rules(rows: Sequence[dict[str, Any]], documents: Sequence[Document], family: str = "source") -> set[str]:
    return {hit.rule for hit in compare(rows, family, {"task": documents})}


# -- ids --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("mbpp", "Mbpp", True),
        ("MbppPlus", "Mbpp", True),
        ("sanitized-mbpp", "Mbpp", True),
        ("openai_humaneval", "HumanEval", True),
        ("code_contests", "code_x_glue_ct_code_to_text", False),
        ("mbpp", "HumanEval", False),
        ("plus", "", False),
    ],
)
def test_families(one: str, other: str, same: bool) -> None:
    assert same_family(one, other) is same_family(other, one) is same


@pytest.mark.parametrize(
    ("id", "family", "found"),
    [
        ("mbpp/601", "mbpp", True),
        ("Mbpp/601", "anything", True),
        ("MBPP/601", "anything", True),
        ("mbpp/602", "mbpp", False),
        ("601", "mbpp", False),  # the number of a row
        ("HumanEval/601", "mbpp", False),
    ],
)
def test_an_id_means_something_within_its_benchmark(id: str, family: str, found: bool) -> None:
    assert rules([row(id=id)], [Document("Mbpp/601", "")], family) == ({"id"} if found else set())


def test_a_bare_id_takes_the_name_of_its_source() -> None:
    document = [Document("ai2_arc/Mercury_7001", "")]
    assert rules([row(id="Mercury_7001")], document, "ai2_arc") == {"id"}
    assert rules([row(id="Mercury_7001")], document, "sciq") == set()


@pytest.mark.parametrize(
    ("given", "id"),
    [
        ({"task_id": 601}, "mbpp/601"),
        ({"task_id": "HumanEval/3"}, "HumanEval/3"),
        ({"id": "Mercury_7001"}, "mbpp/Mercury_7001"),
        ({"id": 5}, None),
        ({"id": "5"}, None),
        ({"task_id": None, "id": "x"}, "mbpp/x"),
        ({}, None),
    ],
)
def test_which_columns_hold_an_id(given: dict[str, Any], id: str | None) -> None:
    assert benchmark_id(given, "mbpp") == id


# -- solutions --------------------------------------------------------------------------------------------------

PROGRAM = '''
import math

def distances(points: list[tuple[float, float]], centre=(0, 0)) -> list[float]:
    """How far each point is."""
    found = []  # in order
    for x, y in points:
        if (x, y) == centre:
            found.append(0.0)
        elif x < 0:
            found.append(math.hypot(x - centre[0], y - centre[1]))
    return (found)
'''
SAME = """import math
def f(ps, c = (0,0)):
  out = []
  for a,b in ps:
    if (a,b)==c: out.append(0.0)
    else:
      if a<0:
        out.append( math.hypot( a-c[0], b-c[1] ) )
  return out
"""


def test_what_normalising_leaves_out() -> None:
    assert normal_form(PROGRAM) == normal_form(SAME) != ""
    assert shape(PROGRAM) == shape(SAME)


@pytest.mark.parametrize(
    ("old", "new"), [("0.0", "1.0"), ("hypot", "dist"), ("x < 0", "x <= 0"), ("x - centre[0]", "y - centre[0]")]
)
def test_what_it_keeps(old: str, new: str) -> None:
    assert old in PROGRAM
    assert normal_form(PROGRAM) != normal_form(PROGRAM.replace(old, new, 1))


@pytest.mark.parametrize(
    "text", ["def add(a, b):\n    return a + b", "yes", "", "Return the name.", '"""Only text."""']
)
def test_what_says_too_little_is_not_compared(text: str) -> None:
    assert normal_form(text) == ""


def test_prose_is_compared_without_case_and_white_space() -> None:
    assert normal_form(LONG.upper().replace(" ", "\n  ")) == normal_form(LONG) == LONG


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("write it", SAME),
        ("write it", f"Here it is:\n```python\n{SAME}```\nIt loops."),
        ("write it\n```python", f"\n{SAME}\n```"),
        (SAME[: SAME.index("  out")], SAME[SAME.index("  out") :]),
    ],
)
def test_where_a_program_stands(prompt: str, completion: str) -> None:
    assert "solution" in rules([row(prompt, completion)], [Document("", "another prompt", (PROGRAM,))])


# -- words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shared", "found"), [(15, {"13-gram", "10-gram"}), (13, {"13-gram", "10-gram"}), (12, {"10-gram"}), (9, set())]
)
def test_how_many_words(shared: int, found: set[str]) -> None:
    text = " ".join(LONG.split()[:shared])
    for prompt, completion in ((f"a b c {text} d e f g h i j k", ""), ("", f"a {text.upper().replace(' ', ', ')}!")):
        assert rules([row(prompt, completion)], [Document("", f"{LONG} and more")]) == found
        assert rules([row(prompt, completion)], [Document("", "", (f"so {LONG}",))]) == found


def test_a_short_prompt_is_compared_whole() -> None:
    document = [Document("", "Is two a prime number?")]
    assert rules([row("is two a prime number")], document) == {"13-gram", "10-gram"}
    assert rules([row("is two a prime number or not")], document) == set()
    assert rules([row("", "Is two a prime number?")], document) == set()
    assert rules([row("a question", "Yes, it is.")], [Document("", "another", ("Yes, it is.",))]) == set()


def test_messages_are_text() -> None:
    chat = {"id": "0", "prompt": [{"role": "user", "content": LONG}], "completion": ""}
    assert rules([chat], [Document("", LONG)]) == {"13-gram", "10-gram"}


def test_the_template_of_a_set_is_not_compared() -> None:
    ask = "please write one self contained function that solves this problem and give nothing else but code"
    made = [Document("", f"{ask}: {' '.join(f'w{number}x{i}' for i in range(14))}") for number in range(20)]
    assert rules([row(f"{ask}: my own problem")], made) == set()
    assert rules([row(f"{ask}: {' '.join(f'w3x{i}' for i in range(14))}")], made) == {"13-gram", "10-gram"}


def _plainly(rows: Iterable[dict[str, Any]], documents: Sequence[Document], size: int) -> set[tuple[int, int]]:
    """(row, document) that share `size` words, by comparing all with all; without the rules on templates."""

    def grams(*texts: str) -> set[tuple[str, ...]]:
        split = [words(text) for text in texts]
        return {tuple(text[i : i + size]) for text in split for i in range(len(text) - size + 1)}

    known = [grams(document.prompt, *document.solutions) for document in documents]
    return {
        (number, place)
        for number, one in enumerate(rows)
        for place, of in enumerate(known)
        if of & grams(one["prompt"], one["completion"])
    }


@pytest.mark.parametrize("seed", range(3))
def test_every_shared_run_of_words_is_found_wherever_it_starts(seed: int) -> None:
    draw = random.Random(seed)

    def text(number: int) -> list[str]:
        return [f"w{draw.randrange(400)}" for _ in range(number)]

    documents = [Document("", " ".join(text(40)), (" ".join(text(30)),)) for _ in range(12)]
    rows = []
    for _ in range(300):
        source = draw.choice(documents)
        whole = draw.choice([source.prompt, *source.solutions]).split()
        start, length = draw.randrange(len(whole)), draw.randrange(6, 18)
        mixed = [*text(draw.randrange(30)), *whole[start : start + length], *text(draw.randrange(30))]
        rows.append(row(" ".join(text(20)), " ".join(mixed)))
    hits = list(compare(rows, "source", {"task": documents}))
    for rule, size in contamination.SIZES.items():
        found = {(hit.row, place) for hit in hits if hit.rule == rule for place in hit.documents}
        assert found == _plainly(rows, documents, size)
        assert found


# -- MBPP -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mbpp(data_dir: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(MBPP's train split, MBPP+), as they lie in their files."""
    train = [json.loads(line) for line in (data_dir / "mbpp/mbpp.jsonl").read_text().splitlines()]
    with gzip.open(data_dir / "mbpp_plus/MbppPlus.jsonl.gz", "rt") as file:
        return [one for one in train if 601 <= one["task_id"] <= 974], list(map(json.loads, file))


def test_mbpps_train_split_holds_108_problems_of_mbpp_plus(mbpp: tuple[Any, Any]) -> None:
    train, plus = mbpp
    both = {f"Mbpp/{one['task_id']}" for one in train} & {one["task_id"] for one in plus}
    assert len(both) == 108
    documents = [Document(one["task_id"], one["prompt"], (one["canonical_solution"],)) for one in plus]
    rows = [row(f"{one['text']}\n{one['test_list'][0]}", one["code"], f"mbpp/{one['task_id']}") for one in train]
    found: dict[str, set[str]] = {rule: set() for rule in RULES}
    right: dict[str, set[str]] = {rule: set() for rule in RULES}
    for hit in compare(rows, "mbpp", {"mbpp_plus": documents}):
        ids = {documents[place].id for place in hit.documents}
        found[hit.rule] |= ids
        right[hit.rule] |= ids & {f"Mbpp/{train[hit.row]['task_id']}"}
    assert found["id"] == both
    # MBPP+ rewrote most solutions and a good part of the texts, so each rule on contents finds a part of them.
    assert {rule: len(ids) for rule, ids in right.items()} == {"id": 108, "solution": 28, "13-gram": 93, "10-gram": 100}
    assert right["solution"] < right["10-gram"]

    own = {one["task_id"]: one for one in plus}
    equal = {
        id
        for one in train
        if (id := f"Mbpp/{one['task_id']}") in both
        and (form := normal_form(one["code"]))
        and form == normal_form(own[id]["canonical_solution"])
    }
    assert right["solution"] == equal
    place = {document.id: number for number, document in enumerate(documents)}
    pairs = [(one, documents[place[f"Mbpp/{one['id'][5:]}"]]) for one in rows if f"Mbpp/{one['id'][5:]}" in both]
    shared = {document.id for one, document in pairs if _plainly([one], [document], 10)}
    assert right["10-gram"] <= shared
    assert len(right["10-gram"]) >= 0.95 * len(shared)


def test_small_programs_coincide_and_larger_ones_do_not(mbpp: tuple[Any, Any]) -> None:
    """Why MIN_NODES: of the 378 solutions of MBPP+, the only two that are alike solve the same problem."""
    alike: dict[str, list[str]] = {}
    for one in mbpp[1]:
        if form := normal_form(one["canonical_solution"]):
            alike.setdefault(form, []).append(one["task_id"])
    assert [ids for ids in alike.values() if len(ids) > 1] == [["Mbpp/67", "Mbpp/608"]]


def test_equal_forms_have_equal_shapes(mbpp: tuple[Any, Any]) -> None:
    """`shape` decides what is parsed at all, so a program laid out anew must keep it."""
    for one in mbpp[1]:
        code = one["canonical_solution"]
        again = ast.unparse(ast.parse(code))
        assert shape(code) == shape(again), one["task_id"]
        assert normal_form(code) == normal_form(again)
