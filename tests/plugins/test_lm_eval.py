"""The lm_eval evaluator against plain lm-eval on the same weights, on tasks and models that are real and tiny."""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mixmerge import Checkpoint, MixmergeError, Score, SourceError, TensorStack
from mixmerge.checkpoint import write
from mixmerge.paths import recipes_folder, tasks_folder
from mixmerge.plugins import _lm_eval_tasks as tasks
from mixmerge.plugins import lm_eval as plugin
from mixmerge.types import Derivation

GENERATE = """\
# Says something after a question.
task: t_generate
custom_dataset: !function utils.dataset
test_split: test
output_type: generate_until
doc_to_text: question
doc_to_target: answer
generation_kwargs: {until: ["e"], max_gen_toks: 12, do_sample: false}
process_results: !function utils.judge
metric_list:
  - {metric: length, aggregation: mean, higher_is_better: false}
  - {metric: pass@1, aggregation: mean, higher_is_better: true}
  - {metric: length@constant, aggregation: mean, higher_is_better: true}
  - {metric: highest, aggregation: !function utils.highest, higher_is_better: true}
metadata: {version: 1, primary: pass@1}
"""
CHOICE = """\
task: t_choice
custom_dataset: !function utils.dataset
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: 0
metadata: {version: 1}
"""
BITS = """\
task: t_bits
custom_dataset: !function utils.dataset
test_split: test
output_type: loglikelihood
doc_to_text: question
doc_to_target: answer
process_results: !function utils.bits
filter_list:
  - {name: first, filter: [{function: take_first}]}
  - {name: second, filter: [{function: take_first}]}
metric_list:
  - {metric: bits, aggregation: mean, higher_is_better: false}
metadata: {version: 1}
"""
GROUP = "group: t_group\ntask: [t_generate, t_choice, t_bits]\nmetadata: {version: 1}\n"
UTILS = """\
def dataset(**_):
    from datasets import Dataset
    words = "write a function that adds numbers and returns the sum of every even value in list".split()
    rows = [
        {"question": " ".join(words[: i % 11 + 1]) + ":", "answer": " " + words[i], "choices": words[i : i + 3]}
        for i in range(13)
    ]
    return {"test": Dataset.from_list(rows)}

def judge(doc, results):
    return {
        "length": float(len(results[0])),
        "pass@1": float(len(results[0]) % 2),
        "length@constant": 1.0,
        "highest": sum(map(ord, results[0])),
    }

def highest(items):
    return max(items)

def bits(doc, results):
    return {"bits": -results[0][0]}
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lm_eval_tasks")
    (path / "t").mkdir()
    for name, text in (("generate.yaml", GENERATE), ("choice.yaml", CHOICE), ("bits.yaml", BITS), ("utils.py", UTILS)):
        (path / "t" / name).write_text(text)
    (path / "group.yaml").write_text(GROUP)
    return path


def make_talkative(file: Path, seed: int) -> None:
    """Large random weights: with small ones and a tied head a model only repeats its last token."""
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(seed)
    weights = load_file(file)
    for name, weight in sorted(weights.items()):
        if weight.ndim == 2:
            weights[name] = 0.7 * torch.randn(weight.shape, generator=generator)
    save_file(weights, file, {"format": "pt"})


@pytest.fixture(scope="session")
def models(tiny_model_dir: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """A base, two experts and a merge of them that is written nowhere."""
    found = {}
    for seed, name in enumerate(("base", "one", "two")):
        path = tmp_path_factory.mktemp("models") / name
        shutil.copytree(tiny_model_dir(seed=seed), path)
        make_talkative(path / "model.safetensors", seed)
        found[name] = Checkpoint(name, path, f"id-{name}")

    def linear(stack: TensorStack) -> Any:
        return stack.base + (stack.weights * stack.deltas).sum(0)

    derivation = Derivation(found["base"], (found["one"], found["two"]), (0.7, 0.6), 0, linear)
    found["merge"] = Checkpoint("merge", found["base"].path, "id-merge", derivation)
    return found


def run(checkpoint: Checkpoint, out: Path, folder: Path, *tasks: str, **parameters: Any) -> list[Score]:
    out.mkdir(parents=True, exist_ok=True)
    given = {"include_path": str(folder), "dtype": "float32", "model_args": {"device": "cpu"}, "batch_size": 4}
    return list(plugin.evaluate.function(checkpoint, tasks or ("t_group",), out, 3, **(given | parameters)))


def plain(
    path: Path, folder: Path, *tasks: str, dtypes: Mapping[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    """What lm-eval itself makes of a directory: its own loading, its own stopping."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    return dict(
        lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(path), "dtype": "float32", **(dtypes or {})},
            device="cpu",
            tasks=list(tasks),
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            batch_size=4,
            bootstrap_iters=0,
            **options,
        )
    )


def answers(out: Path, task: str) -> list[Any]:
    samples = [json.loads(line) for line in (out / f"samples_{task}.jsonl").read_text().splitlines()]
    return [sample["filtered_resps"] for sample in samples]


def values(scores: Sequence[Score]) -> dict[tuple[str, str, str], float]:
    return {(score.task, score.metric, score.reference): score.value for score in scores}


def test_scores_and_samples_are_plain_lm_evals(models: dict[str, Checkpoint], folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):  # the second is poured into what was loaded for the first
        found = run(models[name], tmp_path / name, folder)
        expected = plain(models[name].path, folder, "t_group")
        for task, metrics in expected["results"].items():
            if task == "t_group":
                continue
            for key, value in metrics.items():
                metric, _, filter_name = key.partition(",")
                if not filter_name or metric.endswith("_stderr"):
                    continue
                metric, _, reference = metric.partition("@constant")
                named = f"{metric},{filter_name}" if filter_name == "second" else metric
                reference = "constant" if metric != key.partition(",")[0] else ""
                assert values(found)[task, named, reference] == pytest.approx(value, rel=1e-6)
            said = json.loads(json.dumps([sample["filtered_resps"] for sample in expected["samples"][task]]))
            if task == "t_generate":
                assert answers(tmp_path / name, task) == said
    assert answers(tmp_path / "one", "t_generate") != answers(tmp_path / "two", "t_generate")


def test_a_loss_of_a_bfloat16_model_is_not_rounded_to_bfloat16(
    models: dict[str, Checkpoint], folder: Path, tmp_path: Path
) -> None:
    found = values(run(models["one"], tmp_path / "one", folder, "t_bits", dtype="bfloat16"))["t_bits", "bits", ""]
    dtypes = {"dtype": "bfloat16"}
    rounded = plain(models["one"].path, folder, "t_bits", dtypes=dtypes)["results"]["t_bits"]["bits,first"]
    exact = plain(models["one"].path, folder, "t_bits", dtypes=dtypes | {"softmax_dtype": "float32"})
    assert found == pytest.approx(exact["results"]["t_bits"]["bits,first"], rel=1e-3)
    assert abs(found - rounded) > abs(found - exact["results"]["t_bits"]["bits,first"])
    given = {"device": "cpu", "softmax_dtype": "bfloat16"}
    again = values(run(models["one"], tmp_path / "two", folder, "t_bits", dtype="bfloat16", model_args=given))
    assert again["t_bits", "bits", ""] == pytest.approx(rounded, rel=3e-3)


def test_a_derived_checkpoint_scores_as_when_it_was_written(
    models: dict[str, Checkpoint], folder: Path, tmp_path: Path
) -> None:
    virtual = run(models["merge"], tmp_path / "virtual", folder)
    write(models["merge"], tmp_path / "stored")
    expected = plain(tmp_path / "stored", folder, "t_group")
    assert values(virtual)["t_bits", "bits", ""] == pytest.approx(expected["results"]["t_bits"]["bits,first"], rel=1e-6)
    said = [sample["filtered_resps"] for sample in expected["samples"]["t_generate"]]
    assert answers(tmp_path / "virtual", "t_generate") == said
    stored = run(Checkpoint("stored", tmp_path / "stored", "id-stored"), tmp_path / "again", folder)
    assert values(stored) == pytest.approx(values(virtual), rel=1e-6)


def test_one_instance_serves_all_and_keeps_nothing(models: dict[str, Checkpoint], folder: Path, tmp_path: Path) -> None:
    from mixmerge.plugins import _lm_eval_model

    first = run(models["one"], tmp_path / "1", folder)
    instance = next(iter(_lm_eval_model._kept.values()))
    merged = run(models["merge"], tmp_path / "2", folder)
    assert next(iter(_lm_eval_model._kept.values())) is instance
    again = run(models["one"], tmp_path / "3", folder)
    assert next(iter(_lm_eval_model._kept.values())) is instance
    assert first == again
    assert first != merged
    assert len(_lm_eval_model._kept) == 1
    run(models["one"], tmp_path / "4", folder, "t_choice", dtype="bfloat16")
    assert len(_lm_eval_model._kept) == 1
    assert next(iter(_lm_eval_model._kept.values())) is not instance


def test_weights_that_failed_half_way_are_nobodys(models: dict[str, Checkpoint], folder: Path, tmp_path: Path) -> None:
    good = run(models["one"], tmp_path / "1", folder, "t_bits")

    def broken(stack: TensorStack) -> Any:
        return stack.base * (float("nan") if "norm" in stack.name else 2.0)

    derivation = Derivation(models["base"], (models["one"],), (1.0,), 0, broken)
    with pytest.raises(MixmergeError, match=r"(?i)nan|finite"):
        run(Checkpoint("broken", models["base"].path, "id-broken", derivation), tmp_path / "2", folder, "t_bits")
    assert run(models["one"], tmp_path / "3", folder, "t_bits") == good


def test_what_a_score_says(models: dict[str, Checkpoint], folder: Path, tmp_path: Path) -> None:
    found = {(s.task, s.metric, s.reference): s for s in run(models["one"], tmp_path, folder)}
    texts = [answer[0] for answer in answers(tmp_path, "t_generate")]
    length, passed = found["t_generate", "length", ""], found["t_generate", "pass@1", ""]
    assert length.samples == tuple(float(len(text)) for text in texts)
    assert (length.n, length.higher_is_better, length.primary, length.k) == (13, False, False, None)
    assert length.stderr == pytest.approx(statistics.stdev(length.samples) / math.sqrt(13))
    assert (passed.k, passed.n, passed.primary) == (sum(len(text) % 2 for text in texts), 13, True)
    assert passed.value == pytest.approx(passed.k / 13)
    constant = found["t_generate", "length", "constant"]
    assert (constant.value, constant.stderr, constant.primary) == (1.0, 0.0, False)
    highest = found["t_generate", "highest", ""]
    assert highest.value == max(sum(map(ord, text)) for text in texts)
    assert (highest.samples, highest.stderr, highest.n) == ((), None, 13)  # no mean, so it cannot be paired
    assert found["t_choice", "acc", ""].primary
    assert found["t_choice", "acc", ""].k == sum(found["t_choice", "acc", ""].samples)
    assert found["t_bits", "bits", ""].primary
    assert not found["t_bits", "bits,second", ""].primary
    assert {task for task, _, _ in found} == {"t_generate", "t_choice", "t_bits"}


def test_what_is_left_in_out(models: dict[str, Checkpoint], folder: Path, tmp_path: Path) -> None:
    run(models["one"], tmp_path, folder, limit=5)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["results"]["t_bits"]["bits,first"] > 0
    assert results["n-samples"]["t_bits"] == {"original": 13, "effective": 5}
    assert results["config"]["model"] == "hf"
    samples = [json.loads(line) for line in (tmp_path / "samples_t_generate.jsonl").read_text().splitlines()]
    assert [sample["doc_id"] for sample in samples] == list(range(5))
    assert {"doc", "arguments", "resps", "filtered_resps"} <= set(samples[0])
    assert json.loads((tmp_path / ".progress").read_text())["done"] == 5


def test_generation_ends_at_every_end_token(models: dict[str, Checkpoint], folder: Path, tmp_path: Path) -> None:
    """Two end tokens in generation_config.json, one of them common: a batch says what each prompt alone says."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = tmp_path / "model"
    shutil.copytree(models["one"].path, path)
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    prompts = [row["question"] for row in _rows(folder)]
    free = [_greedy(model, tokenizer(prompt)["input_ids"], ()) for prompt in prompts]
    token = max((said for row in free for said in row[2:9]), key=[said for row in free for said in row].count)
    configuration = json.loads((path / "generation_config.json").read_text())
    (path / "generation_config.json").write_text(json.dumps(configuration | {"eos_token_id": [0, token]}))

    options = {"until": [], "max_gen_toks": 12}
    run(Checkpoint("m", path, "two-ends"), tmp_path / "out", folder, "t_generate", gen_kwargs=options)
    expected = [_greedy(model, tokenizer(prompt)["input_ids"], (0, token)) for prompt in prompts]
    assert {len(row) for row in expected} > {12}  # some end early and some do not
    assert answers(tmp_path / "out", "t_generate") == [
        [tokenizer.decode(row, skip_special_tokens=True)] for row in expected
    ]


def _rows(folder: Path) -> list[dict[str, Any]]:
    import runpy

    return list(runpy.run_path(str(folder / "t" / "utils.py"))["dataset"]()["test"])


def _greedy(model: Any, prompt: list[int], ends: Sequence[int]) -> list[int]:
    """The 12 most likely tokens one after another, the end token included, without a cache, a batch or padding."""
    import torch

    said: list[int] = []
    while len(said) < 12 and not (said and said[-1] in ends):
        with torch.no_grad():
            said.append(int(model(torch.tensor([prompt + said])).logits[0, -1].argmax()))
    return said


def test_rows_stop_at_their_own_stop_sequence() -> None:
    """The criterion by hand: rows of letters, stop sequences of one and of two letters."""
    import torch

    from mixmerge.plugins._lm_eval_model import RowStop

    class Letters:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return [ord(letter) for letter in text]

        def batch_decode(self, rows: torch.Tensor) -> list[str]:
            return ["".join(map(chr, row)) for row in rows.tolist()]

    rows = [[ord(letter) for letter in text] for text in ("pq;abcd", "pqabcde", "pqab\n\nf")]
    ids = torch.tensor(rows)
    stop = RowStop(Letters(), ["d", "\n\n", ""], 3)  # the ";" belongs to the prompt
    seen = [stop(ids[:, :end], None).tolist() for end in range(4, 8)]
    assert seen == [
        [False, False, False],
        [False, False, False],
        [False, True, True],
        [True, True, True],
    ]


def test_parameters_reach_lm_eval(models: dict[str, Checkpoint], folder: Path, tmp_path: Path) -> None:
    run(models["one"], tmp_path / "shots", folder, "t_bits", num_fewshot=1, limit=2)
    sample = json.loads((tmp_path / "shots" / "samples_t_bits.jsonl").read_text().splitlines()[0])
    assert sample["arguments"][0][0].count(":") == 2
    run(models["one"], tmp_path / "short", folder, "t_generate", gen_kwargs={"max_gen_toks": 1, "until": []})
    run(models["one"], tmp_path / "long", folder, "t_generate", gen_kwargs={"max_gen_toks": 9, "until": []})
    assert len(answers(tmp_path / "short", "t_generate")[0][0]) < len(answers(tmp_path / "long", "t_generate")[0][0])


def test_the_same_seed_says_the_same(models: dict[str, Checkpoint], folder: Path, tmp_path: Path) -> None:
    sampled = {"do_sample": True, "temperature": 1.5}
    first = run(models["one"], tmp_path / "1", folder, "t_generate", gen_kwargs=sampled)
    second = run(models["one"], tmp_path / "2", folder, "t_generate", gen_kwargs=sampled)
    assert first == second
    assert answers(tmp_path / "1", "t_generate") == answers(tmp_path / "2", "t_generate")


def test_another_backend_reads_a_directory(models: dict[str, Checkpoint], folder: Path, tmp_path: Path) -> None:
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM

    seen: list[Path] = []

    @register_model("mixmerge_test_backend")
    class Other(HFLM):  # type: ignore[misc]
        def __init__(self, pretrained: str, **arguments: Any) -> None:
            seen.append(Path(pretrained))
            super().__init__(pretrained=pretrained, **arguments)

    virtual = run(models["merge"], tmp_path / "hf", folder)
    other = run(models["merge"], tmp_path / "other", folder, model="mixmerge_test_backend")
    assert values(other) == pytest.approx(values(virtual), rel=1e-6)
    assert seen[0] != models["base"].path
    assert not seen[0].exists()
    run(models["one"], tmp_path / "stored", folder, model="mixmerge_test_backend")
    assert seen[1] == models["one"].path
    with pytest.raises(MixmergeError, match="'no_such_backend' is not to be had"):
        run(models["one"], tmp_path / "none", folder, model="no_such_backend")
    with pytest.raises(MixmergeError, match="cannot be made"):
        run(models["one"], tmp_path / "none", folder, model_args={"colour": "red"})


def test_tasks_that_execute_code_in_this_process_are_refused(models: dict[str, Checkpoint], tmp_path: Path) -> None:
    unsafe = tmp_path / "tasks"
    (unsafe / "t").mkdir(parents=True)
    text = GENERATE.replace("t_generate", "t_unsafe") + "unsafe_code: true\n"
    (unsafe / "t" / "generate.yaml").write_text(text)
    (unsafe / "t" / "utils.py").write_text(UTILS)
    with pytest.raises(MixmergeError, match=r"t_unsafe.*unsafe") as caught:
        run(models["one"], tmp_path / "out", unsafe, "t_unsafe")
    assert "sandbox" in caught.value.hint


def test_pins_name_the_content_of_a_task(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = plugin.pins(["t_bits"], {"include_path": str(folder)})
    assert before["t_bits"].startswith("sha256:")
    assert plugin.pins(["t_bits"], {"include_path": str(copy)}) == before
    group = plugin.pins(["t_group"], {"include_path": str(folder)})
    assert set(group) == {"t_generate", "t_choice", "t_bits", ":t_group", ":python"}
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    (changed / "t" / "utils.py").write_text(UTILS + "\n")
    after = plugin.pins(["t_bits"], {"include_path": str(changed)})
    assert after["t_bits"] != before["t_bits"]


def test_names_that_nobody_knows_are_refused() -> None:
    ours = "mm_list_pipelines"
    with pytest.raises(SourceError, match="no task is called") as caught:
        plugin.pins([ours + "x"], {})
    assert ours in caught.value.hint
    with pytest.raises(SourceError, match="is no folder"):
        plugin.pins([ours], {"include_path": "/no/such/folder"})
    shipped = plugin.pins(["arc_easy", ours], {})
    assert shipped["arc_easy"].startswith("lm_eval ")
    assert shipped[ours].startswith("sha256:")


def test_known_tasks_and_pins_import_nothing_heavy() -> None:
    program = (
        "import sys; from mixmerge.plugins.lm_eval import known_tasks, pins; names = [n for n, _ in known_tasks()];"
        "pins(names, {}); print(len(names) > 3, [m for m in ('torch', 'lm_eval', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"


def test_every_task_of_ours_says_what_it_is() -> None:
    for name, summary in plugin.known_tasks():
        assert summary, name


def test_the_folders_that_travel_are_found() -> None:
    assert list(tasks_folder().rglob("*.yaml"))
    assert list(recipes_folder().glob("*.yaml"))


def test_pins_cover_another_tasks_code_that_a_task_uses(tmp_path: Path) -> None:
    """mm_stdlib_summary takes its metrics from mm_code2text."""
    from mixmerge.paths import tasks_folder

    copy = Path(shutil.copytree(tasks_folder(), tmp_path / "tasks"))
    before = tasks._content("mm_stdlib_summary", copy)
    (copy / "mm_code2text" / "metrics.py").open("a").write("\n# another metric\n")
    after = tasks._content("mm_stdlib_summary", copy)
    assert after["mm_stdlib_summary"] != before["mm_stdlib_summary"]
    assert tasks._content("mm_humaneval_plus", copy) == tasks._content("mm_humaneval_plus", tasks_folder())


def test_what_tasks_hold(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Groups as one, ours and a folder's own, and a reason for what cannot be read."""
    monkeypatch.setenv("MIXMERGE_DATA", str(tmp_path))
    found = plugin.contents(["mm_list_pipelines", "t_group", "mm_code2text_python"], include_path=str(folder))
    assert str(found["mm_code2text_python"]).startswith("SourceError: there is no file")
    ours, group = found["mm_list_pipelines"], found["t_group"]
    assert not isinstance(ours, str)
    assert not isinstance(group, str)
    assert len(ours) == 80
    assert ours[0].id == "mm_list_pipelines/test-0"
    assert ours[0].prompt.startswith("Write ")
    assert "def solve(xs):" in ours[0].solutions[0]
    assert len(group) == 3 * 13


def test_mbpps_train_split_is_found_in_mbpp_plus(data_dir: Path) -> None:
    """108 of 378, through the task and the data source that a recipe would name.

    In a process of its own: tasks keep the problems that they have read, and other tests take their data away.
    """
    code = """
import json, os
from mixmerge.contamination import compare
from mixmerge.plugins.lm_eval import contents
from mixmerge.sources import DataSpec, load_rows, source_name

documents = contents(["mm_mbpp_plus"])["mm_mbpp_plus"]
assert not isinstance(documents, str), documents
data = DataSpec("mbpp:" + os.environ["MIXMERGE_DATA"] + "/mbpp/mbpp.jsonl")
hits = compare(load_rows(data, 0).rows, source_name(data.source), {"mm_mbpp_plus": documents})
print(json.dumps([[hit.rule, [documents[place].id for place in hit.documents]] for hit in hits] + [len(documents)]))
"""
    env = {**os.environ, "MIXMERGE_DATA": str(data_dir)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *hits, size = json.loads(done.stdout)
    assert size == 378
    assert len({id for rule, ids in hits if rule == "id" for id in ids}) == 108
    by_content = {id for rule, ids in hits if rule != "id" for id in ids if int(id.removeprefix("Mbpp/")) >= 601}
    assert len(by_content) >= 85


def hesitant(checkpoint: Checkpoint, path: Path) -> Path:
    """The same model, but for a penalty in its generation_config.json, which transformers applies without a word."""
    shutil.copytree(checkpoint.path, path)
    file = path / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"repetition_penalty": 5.0}))
    return path


def test_a_penalty_of_the_model_s_own_is_seen_and_can_be_undone(
    models: dict[str, Checkpoint], folder: Path, tmp_path: Path
) -> None:
    path = hesitant(models["one"], tmp_path / "model")
    said, asked = {}, {}
    for name, checkpoint, options in (
        ("plain", models["one"], {}),
        ("penalty", Checkpoint("m", path, "penalty"), {}),
        ("undone", Checkpoint("m", path, "penalty"), {"repetition_penalty": 1.0}),
    ):
        options = {"gen_kwargs": {"until": [], "max_gen_toks": 12, **options}}
        asked[name] = run(checkpoint, tmp_path / name, folder, "t_generate", **options)[0].asked
        said[name] = answers(tmp_path / name, "t_generate")
    assert asked == {"plain": {}, "penalty": {"repetition_penalty": "5.0"}, "undone": {}}
    assert said["plain"] == said["undone"] != said["penalty"]


def test_models_that_a_task_asks_differently_are_not_compared(
    models: dict[str, Checkpoint], folder: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"""\
base: {{model: {models["base"].path}}}
models:
  one: {{model: {models["one"].path}}}
  two: {{model: {hesitant(models["two"], tmp_path / "two")}}}
merge:
  merged: {{experts: [one, two], weights: [0.5, 0.5], method: linear}}
eval:
  evaluator: {{lm_eval: {{include_path: {folder}, dtype: float32}}}}
  report_on: [t_generate]
report: [markdown]
""")
    command = [sys.executable, "-m", "mixmerge", "recipe", str(recipe)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "t_generate asked base and two differently" in done.stderr
    assert "repetition_penalty: not set and 5.0" in done.stderr
    assert "hint: give both models the same chat template" in done.stderr
    assert "Traceback" not in done.stderr
