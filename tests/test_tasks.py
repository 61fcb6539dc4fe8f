"""The shipped tasks in plain lm-eval: they load, judge right and wrong answers, and ask what training rows ask."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixmerge.sources import DataSpec, installed, list_pipelines, load_rows

TASKS = Path(__file__).parent.parent / "tasks"
ENDINGS = ("", "_dev")
NAMES = [
    f"{name}{ending}"
    for name in ("mm_list_pipelines", "mm_list_pipelines_bits", "mm_stdlib_summary", "mm_stdlib_summary_bits")
    for ending in ENDINGS
]


def utils(folder: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{folder}_utils", TASKS / folder / "utils.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PIPELINES = utils("mm_list_pipelines")
SUMMARY = utils("mm_stdlib_summary")


@pytest.fixture(scope="module")
def tasks() -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    return dict(manager.load(["mm_demo", "mm_demo_dev"])["tasks"])


def judged(task: Any, answers: list[str]) -> list[dict[str, float]]:
    """What lm-eval makes of one answer for each doc: its filters, then process_results."""
    task.build_all_requests(limit=None, rank=0, world_size=1)
    for instance in task.instances:
        instance.resps = [answers[instance.doc_id]]
    task.apply_filters()
    return [
        task.process_results(instance.doc, [instance.filtered_resps[name]])
        for instance in task.instances
        for name in instance.filtered_resps
    ]


def test_groups_hold_every_task(tasks: dict[str, Any]) -> None:
    assert sorted(tasks) == sorted(NAMES)
    for name, task in tasks.items():
        assert len(task.eval_docs) == (40 if name.endswith("_dev") else 80)
        assert task.config.metadata["primary"] in task.higher_is_better()


def test_no_name_is_taken_from_lm_eval() -> None:
    import lm_eval

    shipped = Path(lm_eval.__file__).parent / "tasks"
    assert not [path for path in shipped.rglob("*.yaml") if path.stem.startswith("mm_")]


def test_prompts_are_those_of_training_rows(tasks: dict[str, Any]) -> None:
    sources = {"mm_list_pipelines": "demo:list-pipelines", "mm_stdlib_summary": "python-stdlib:"}
    for name, task in tasks.items():
        split = "dev" if name.endswith("_dev") else "test"
        source = sources[name.removesuffix("_dev").removesuffix("_bits")]
        rows = {row["id"]: row for row in load_rows(DataSpec(source, split=split), seed=0).rows}
        for doc in task.eval_docs:
            row = rows.pop(doc["id"])
            context = task.fewshot_context(doc, num_fewshot=0)
            assert context == row["prompt"]
            assert task.doc_to_target(doc) == row["completion"]
            assert context == context.rstrip()
        assert not rows


def test_reference_programs_pass_and_wrong_ones_fail(tasks: dict[str, Any]) -> None:
    task = tasks["mm_list_pipelines_dev"]
    references = [doc["completion"] for doc in task.eval_docs]
    # generation stops at the fence, which is then cut off
    right = judged(task, [reference.removesuffix("```") for reference in references])
    assert [score["pass@1"] for score in right] == [1.0] * 40
    wrong = judged(task, references[1:] + references[:1])  # each answers another problem
    assert sum(score["pass@1"] for score in wrong) <= 1
    broken = ["", "\nI cannot do that", "\ndef solve(xs):\n    return 1/0", "\ndef solve(xs):\n    return x"] * 10
    broken[0] = "\ndef solve(xs):\n    while True: pass"
    assert sum(score["pass@1"] for score in judged(task, broken)) == 0


def test_every_test_reference_passes(tasks: dict[str, Any]) -> None:
    task = tasks["mm_list_pipelines"]
    assert {score["pass@1"] for score in judged(task, [doc["completion"] for doc in task.eval_docs])} == {1.0}


def test_a_program_cannot_claim_to_have_passed() -> None:
    doc = {"tests": json.dumps([{"input": [1], "expected": 1}, {"input": [2, 3], "expected": True}])}
    cheats = [
        "class Same:\n    def __eq__(self, other): return True\ndef solve(xs): return Same()",
        "import os\nprint('{\"passed\": true}')\nos._exit(0)",
        "def solve(xs): return 1",  # 1 is not True
        "def solve(xs): return 1.0 if len(xs) == 1 else True",  # 1.0 is not 1
        "class L(list): pass\ndef solve(xs): return L(xs)",
    ]
    honest = "def solve(xs): return 1 if len(xs) == 1 else True"
    verdicts = PIPELINES.judge([[*cheats, honest]], [doc])[0]
    assert [verdict["passed"] for verdict in verdicts] == [False] * 5 + [True]
    assert PIPELINES.pass_at_1(doc, [verdicts]) == {"pass@1": pytest.approx(1 / 6)}
    assert json.dumps(verdicts)  # lm-eval keeps them with the samples


def test_equality_is_of_type_and_value() -> None:
    assert PIPELINES.same([1, [2]], [1, [2]])
    for value, expected in [(True, 1), (1.0, 1), ([1], (1,)), ([1, 2], [1]), ([True], [1]), (None, 0)]:
        assert not PIPELINES.same(value, expected)


def test_code_is_taken_out_of_a_response() -> None:
    assert PIPELINES.extract_code("\ndef solve(xs):\n    return 1\n```\nSo it is.") == "def solve(xs):\n    return 1"
    assert (
        PIPELINES.extract_code("\ndef solve(xs):\n    return 1\n\nprint(solve([1,") == "def solve(xs):\n    return 1\n"
    )
    assert PIPELINES.extract_code("this is no program") == ""
    assert PIPELINES.extract_code("") == ""


def test_summaries_are_scored_beside_the_constant_sentence(tasks: dict[str, Any]) -> None:
    task = tasks["mm_stdlib_summary"]
    perfect = judged(task, [doc["completion"] for doc in task.eval_docs])
    assert {round(score["rouge_l"], 6) for score in perfect} == {100.0}
    assert min(score["bleu4_codexglue"] for score in perfect) > 99
    empty = judged(task, [""] * 80)
    assert {score["rouge_l"] for score in empty} == {0.0}
    constant = judged(task, [f'{SUMMARY.CONSTANT}"\n\nand more'] * 80)
    for given, other in zip(constant, perfect, strict=True):
        assert given["rouge_l"] == given["rouge_l@constant sentence"] == other["rouge_l@constant sentence"]
        assert given["bleu4_codexglue"] == given["bleu4_codexglue@constant sentence"]
    assert 5 < sum(score["rouge_l"] for score in constant) / 80 < 25  # far below what a trained model reaches


def test_summaries_by_hand() -> None:
    # the longest common subsequence of "return the sum" and "return a sum" has 2 of 3 words on either side; 1-grams 3/4
    # with the full stop, then add-one smoothing: 2-grams 2/4, 3-grams 1/3, 4-grams 1/2; lengths agree
    bleu = 100 * math.exp((math.log(3 / 4) + math.log(2 / 4) + math.log(1 / 3) + math.log(1 / 2)) / 4)
    found = SUMMARY.scores({"docstring": "Return the sum."}, ['return a sum."'])
    assert found["rouge_l"] == pytest.approx(100 * 2 / 3)
    assert found["bleu4_codexglue"] == pytest.approx(bleu)
    assert SUMMARY.scores({"docstring": SUMMARY.CONSTANT}, ["no"])[
        "bleu4_codexglue@constant sentence"
    ] == pytest.approx(100)


def test_bits_per_byte_by_hand() -> None:
    for module in (PIPELINES, SUMMARY):
        doc = {"completion": "äbc"}  # four bytes
        assert module.bits_per_byte(doc, [(-8 * math.log(2), False)]) == {"bits_per_byte": pytest.approx(2.0)}


@pytest.mark.slow
def test_a_tiny_model_runs_through_plain_lm_eval(tiny_model_dir: Callable[..., Path]) -> None:
    import lm_eval
    import torch
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = tiny_model_dir(seed=0)
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(path), "dtype": "float32"},
        tasks=["mm_demo_dev"],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        limit=2,
        batch_size=2,
        device="cpu",
        bootstrap_iters=0,
    )
    results = found["results"]
    assert results["mm_list_pipelines_dev"]["pass@1,executed"] == 0
    assert results["mm_stdlib_summary_dev"]["rouge_l@constant sentence,none"] > 0

    # the loss again, from the model itself
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    bits = []
    for problem in list_pipelines.problems("dev")[:2]:
        before = len(tokenizer(problem.prompt).input_ids)
        ids = torch.tensor([tokenizer(problem.prompt + problem.completion).input_ids])
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(
                model(ids).logits[0, before - 1 : -1], ids[0, before:], reduction="sum"
            )
        bits.append(loss.item() / math.log(2) / len(problem.completion.encode()))
    assert results["mm_list_pipelines_bits_dev"]["bits_per_byte,none"] == pytest.approx(sum(bits) / 2, rel=1e-5)


@pytest.mark.parametrize("kind", ["pipelines", "summary"])
def test_prompt_and_completion_meet_between_tokens(kind: str) -> None:
    """With GPT-2's splitting rule, which most code models share, the prompt's tokens do not depend on what follows."""
    from tokenizers.pre_tokenizers import ByteLevel

    split = ByteLevel(add_prefix_space=False).pre_tokenize_str
    items = list_pipelines.problems("train") if kind == "pipelines" else installed.stdlib_pairs("test")
    for item in items:
        prompt, whole = split(item.prompt), split(item.prompt + item.completion)
        assert whole[: len(prompt)] == prompt


def test_python_rows_of_code_to_text_hold_their_docstring(data_dir: Path) -> None:
    """Why a recipe on CodeXGLUE writes {code|without_docstring}."""
    with gzip.open(data_dir / "code2text" / "python" / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        row = json.loads(next(lines))
    assert row["docstring"].split("\n")[0].strip() in row["code"]
