"""Several trained runs on one backbone: the answers of each, whatever stands beside it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import peftbench
from peftbench.errors import UserError
from peftbench.runs.record import Record
from peftbench.serving import MultiTask, multitask
from peftbench.serving.batch_mode import BatchMode
from peftbench.serving.byte_limited_lru import ByteLimitedLRU
from peftbench.serving.predictor import Answer
from peftbench.serving.task_tensors import TaskTensors, read_recorded

TEXTS = ["the film was good", "a dull and bad plot", "the plot is fine but dull", "good"]
PAIRS = [("the film", "good and fine"), ("a plot", "dull but the film was good"), ("bad", "bad")]


def asked(runs: dict[str, Record]) -> tuple[list[Any], list[str]]:
    """Texts and their tasks, the tasks in turn."""
    rows: list[tuple[Any, str]] = [(text, name) for text in TEXTS for name in runs if name not in ("pairs", "scores")]
    rows += [(pair, name) for pair in PAIRS for name in ("pairs", "scores")]
    return [text for text, _ in rows], [name for _, name in rows]


def check_same(found: Answer, expected: Answer) -> None:
    if expected.probabilities:
        assert found.prediction == expected.prediction
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    else:
        assert found.prediction == pytest.approx(expected.prediction, abs=1e-5)


@pytest.mark.parametrize("batch_size", [64, 7])
def test_answers_as_each_run_by_itself(task_runs: dict[str, Record], batch_size: int) -> None:
    texts, names = asked(task_runs)
    tasks = MultiTask(task_runs, device="cpu", batch_size=batch_size)
    answers = tasks.predict(texts, names)
    for name, record in task_runs.items():
        rows = [row for row, asked_name in enumerate(names) if asked_name == name]
        expected = peftbench.load(record.folder, device="cpu").predict([texts[row] for row in rows])
        for row, answer in zip(rows, expected, strict=True):
            check_same(answers[row], answer)
    assert set(tasks.ways().values()) == {BatchMode.STACKED}


def test_one_pass_for_a_whole_batch(task_runs: dict[str, Record]) -> None:
    tasks = MultiTask(task_runs, device="cpu")
    texts, names = asked(task_runs)
    expected = tasks.predict(texts, names)
    passes: list[int] = []
    encoder = tasks._backbone.encoder
    handle = encoder.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    answers = tasks.predict(texts, names)
    handle.remove()
    assert passes == [len(texts)]
    assert answers == expected


def test_leaves_the_backbone_as_it_was(task_runs: dict[str, Record]) -> None:
    tasks = MultiTask(task_runs, device="cpu")
    encoder = tasks._backbone.encoder
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    parameters = [id(p) for p in encoder.parameters()]
    tasks.predict(*asked(task_runs))
    tasks.predict(TEXTS, "full")
    assert [id(p) for p in encoder.parameters()] == parameters
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_a_text_without_words_has_no_answer(task_runs: dict[str, Record]) -> None:
    tasks = MultiTask({"a": task_runs["lora"], "b": task_runs["pairs"]}, device="cpu")
    answers = tasks.predict(["good", " ", ("bad", "")], ["a", "a", "b"])
    assert [answer.prediction is None for answer in answers] == [False, True, True]
    assert tasks.predict([], []) == []


def test_tasks_come_while_others_answer(task_runs: dict[str, Record]) -> None:
    """A wider head changes nothing for those that are there."""
    tasks = MultiTask({"scores": task_runs["scores"]}, device="cpu")
    before = tasks.predict(PAIRS, "scores")
    tasks.register("lora", task_runs["lora"].folder)
    for found, expected in zip(tasks.predict(PAIRS, "scores"), before, strict=True):
        check_same(found, expected)
    assert tasks.labels("lora") == ("bad", "good")
    assert tasks.labels("scores") == ()


def test_mistakes_are_one_line(task_runs: dict[str, Record], tmp_path: Path) -> None:
    tasks = MultiTask({"opinions": task_runs["lora"], "pairs": task_runs["pairs"]}, device="cpu")
    mistakes = [
        (lambda: tasks.register("pairs", task_runs["lora"]), "'pairs' is registered already"),
        (lambda: tasks.register("", task_runs["lora"]), "needs a name"),
        (lambda: tasks.register("x", tmp_path / "none"), "No run"),
        (lambda: tasks.predict(["good"], "opinion"), "no task 'opinion' is registered. Did you mean opinions?"),
        (lambda: tasks.predict(["good"], [None]), "no task 'None'"),
        (lambda: tasks.predict("good", "opinions"), "list of texts, not one string"),
        (lambda: tasks.predict(["good"], ["opinions"] * 2), "1 texts, 2 names"),
        (lambda: tasks.predict(["good"], "pairs"), "task pairs takes pairs of texts"),
        (lambda: tasks.predict([("good", "bad")], "opinions"), "task opinions takes texts"),
        (lambda: tasks.predict([3], "opinions"), "task opinions takes texts; example 0 is '3'"),
        (lambda: MultiTask(memory_mib=0), "memory_mib=0"),
        (lambda: MultiTask(precision="fp16"), "precision=fp16"),
        (lambda: MultiTask(device="tpu"), "device=tpu"),
    ]
    for mistake, said in mistakes:
        with pytest.raises(UserError) as raised:
            mistake()
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)
    assert tasks.tasks == ("opinions", "pairs")


def test_runs_that_cannot_share(train_tiny, task_runs: dict[str, Record], tmp_path: Path) -> None:
    from tiny import tiny_model

    model = Path(task_runs["lora"].config()["model"]["path"])
    other = Path(shutil.copytree(model, tmp_path / "other-bert"))
    tiny_model("bert", seed=1).base_model.save_pretrained(other)
    short = ["method=head", "trainer.max_steps=1"]
    elsewhere = train_tiny("opinions", *short, f"model.path={other}")
    in_bf16 = train_tiny("opinions", *short, "trainer.precision=bf16")
    same = train_tiny("opinions", *short, f"model.path={shutil.copytree(model, tmp_path / 'the-same')}")
    tasks = MultiTask({"one": task_runs["lora"], "same": same}, device="cpu")
    with pytest.raises(UserError, match="was trained on another backbone"):
        tasks.register("two", elsewhere)
    with pytest.raises(UserError, match="was trained in bf16 and .* in fp32: say in which precision"):
        tasks.register("two", in_bf16)
    both = MultiTask({"one": task_runs["lora"], "two": in_bf16}, device="cpu", precision="fp32")
    check_same(both.predict(["good"], "one")[0], tasks.predict(["good"], "one")[0])


def test_a_damaged_adapter_is_named(task_runs: dict[str, Record], tmp_path: Path) -> None:
    record = Record(Path(shutil.copytree(task_runs["lora"].folder, tmp_path / task_runs["lora"].folder.name)))
    tasks = MultiTask({"good": task_runs["lora_again"], "damaged": record}, device="cpu")
    file = record.adapter_dir / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(UserError, match="adapter.safetensors"):
        tasks.predict(["good", "bad"], ["good", "damaged"])
    assert tasks.predict(["good"], "good")[0].prediction
    with pytest.raises(UserError, match="adapter.safetensors"):
        MultiTask({"damaged": record}, device="cpu")


@pytest.mark.long
def test_many_tasks_stay_within_their_memory(task_runs: dict[str, Record]) -> None:
    names = [f"task{number}" for number in range(300)]
    tasks = MultiTask(dict.fromkeys(names, task_runs["adapter"]), device="cpu", memory_mib=1, batch_size=32)
    expected = tasks.predict(["good"], names[0])[0]
    asked_for = names[50:250]
    answers = tasks.predict(["good"] * len(asked_for), asked_for)
    for answer in answers:
        check_same(answer, expected)
    held = tasks._tensors
    assert 0 < len(held._kept) < len(asked_for)
    assert held._kept.size <= held._kept.limit


def test_a_task_of_more_than_half_of_the_memory_is_read_once(task_runs: dict[str, Record]) -> None:
    tasks = MultiTask({"full": task_runs["full"]}, device="cpu")
    tensors, reads = tasks._made(), []
    size = tensors.size_of(tasks._tasks["full"])

    def read(task: Any) -> Any:
        reads.append(task.name)
        return read_recorded(task)

    tasks._tensors = TaskTensors(tensors.mixer, size + size // 2, read)
    assert tasks.predict(["good"], "full") == tasks.predict(["good"], "full") and reads == ["full"]


def test_a_pass_is_cut_where_its_tasks_need_more_memory_than_they_may(
    task_runs: dict[str, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, names = asked(task_runs)
    expected = MultiTask(task_runs, device="cpu").predict(texts, names)
    tasks = MultiTask(task_runs, device="cpu")
    tensors = tasks._made()
    sizes = {name: tensors.size_of(task) for name, task in tasks._tasks.items()}
    limit = 2 * max(size for name, size in sizes.items() if name != "full")
    assert sizes["full"] > limit
    tasks._tensors = tensors = TaskTensors(tensors.mixer, 2 * limit, read_recorded)
    passed: list[set[str]] = []
    answered = multitask.mixed_logits

    def noted(held: TaskTensors, batch: Any, parts: list[Any]) -> torch.Tensor:
        passed.append({task.name for task in parts})
        logits = answered(held, batch, parts)
        assert held._kept.size <= 2 * limit
        return logits

    monkeypatch.setattr(multitask, "mixed_logits", noted)
    for found, answer in zip(tasks.predict(texts, names), expected, strict=True):
        check_same(found, answer)
    assert {"full"} in passed and len(passed) < len(task_runs)
    assert all(sum(sizes[name] for name in together) <= limit for together in passed if "full" not in together)


def test_what_was_not_asked_for_longest_goes_first() -> None:
    made: list[str] = []
    kept: ByteLimitedLRU[str] = ByteLimitedLRU(10)

    def get(key: str, size: int = 4) -> str:
        def make() -> tuple[str, int]:
            made.append(key)
            return key, size

        return kept.get(key, make)

    for key in ("a", "b", "a", "c", "a", "b"):
        assert get(key) == key
    assert made == ["a", "b", "c", "b"]
    assert get("large", 11) == get("large", 11) == "large" and made[-2:] == ["large", "large"]
    assert (len(kept), kept.size) == (2, 8)
    assert get("all", 10) == "all" and (len(kept), kept.size) == (1, 10)


def test_a_first_call_in_inference_mode_leaves_later_ones_as_they_are(task_runs: dict[str, Record]) -> None:
    names = ["prefix", "lora", "adapter"]
    runs = {name: task_runs[name] for name in names}
    expected = MultiTask(runs, device="cpu").predict(["good"] * 3, names)
    registered = MultiTask(runs, device="cpu")
    with torch.inference_mode():
        made = MultiTask(runs, device="cpu")
        in_bf16 = MultiTask(runs, device="cpu", precision="bf16")
        told = in_bf16.predict(["good"] * 3, names)
        predictors = {name: peftbench.load(runs[name].folder, device="cpu", merged=name == "lora") for name in names}
        assert registered.predict(["good"] * 3, names) == made.predict(["good"] * 3, names) == expected
    assert registered.predict(["good"] * 3, names) == made.predict(["good"] * 3, names) == expected
    assert in_bf16.predict(["good"] * 3, names) == told
    for name, answer in zip(names, expected, strict=True):
        check_same(predictors[name].predict(["good"])[0], answer)


# the model takes 66 tokens: with so many a prompt has no room for its own
@pytest.mark.parametrize(("multiple", "lengths"), [(8, {8, 16}), (66, {3, 7, 8, 66})])
def test_lengths_are_padded_to_a_multiple(
    task_runs: dict[str, Record], monkeypatch: pytest.MonkeyPatch, multiple: int, lengths: set[int]
) -> None:
    """Kernels of bf16 on a CPU are made for each length; in fp32 the answers show to five digits."""
    texts, names = asked(task_runs)
    expected = MultiTask(task_runs, device="cpu").predict(texts, names)
    tasks = MultiTask(task_runs, device="cpu", batch_size=16)
    seen: set[int] = set()
    answered = multitask.mixed_logits

    def noted(held: TaskTensors, batch: Any, parts: list[Any]) -> torch.Tensor:
        seen.add(batch["input_ids"].shape[1])
        return answered(held, batch, parts)

    monkeypatch.setattr(multitask, "mixed_logits", noted)
    monkeypatch.setattr(multitask, "padding_multiple", lambda precision, device: multiple)
    for found, answer in zip(tasks.predict(texts, names), expected, strict=True):
        check_same(found, answer)
    assert seen == lengths


def test_a_short_text_is_padded_in_bf16_on_a_cpu(task_runs: dict[str, Record]) -> None:
    tasks = MultiTask({"prefix": task_runs["prefix"]}, device="cpu", precision="bf16")
    seen: list[int] = []
    tasks.ways()
    tasks._backbone.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    tasks.predict(["good"], "prefix")
    assert seen == [8]
