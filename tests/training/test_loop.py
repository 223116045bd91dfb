"""The training loop on a tiny model: it learns, repeats itself, goes on where it stopped, and notices NaN."""

import os
import signal

import pytest
import torch
from tiny import encoded_texts, tiny_model

from peftbench.config.schema import TrainerConfig
from peftbench.errors import NonFiniteError, UserError
from peftbench.interruption import deferred_interrupts
from peftbench.methods import build, find_sites
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.lora import LoraConfig
from peftbench.tasks.classification import Classification
from peftbench.tasks.text.batching import EncodedTexts
from peftbench.training.inference import logits_of
from peftbench.training.loop import fit

CPU = torch.device("cpu")
OBJECTIVE = Classification(("no", "yes"))


def _config(**changes) -> TrainerConfig:
    settings = {
        "epochs": 3, "lr": 5e-3, "batch_size": 8, "eval_batch_size": 16, "accumulate": 1, "weight_decay": 0.01,
        "betas": [0.9, 0.999], "schedule": "linear", "warmup": 0.1, "clip": 1.0, "patience": 0,
        "precision": "fp32", "compile": False,
    }  # fmt: skip
    return TrainerConfig(**(settings | changes))


def _data(rows: int = 60, seed: int = 0) -> EncodedTexts:
    """Rows of 4 to 11 tokens; the label says whether token 7 or token 8 stands behind the first."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (rows,), generator=generator)
    encoded = []
    for label in labels.tolist():
        length = int(torch.randint(4, 12, (1,), generator=generator))
        tail = torch.randint(10, 120, (length - 2,), generator=generator).tolist()
        encoded.append({"input_ids": [2, 7 + label, *tail]})
    return encoded_texts(encoded, labels, {"input_ids": 0})


class Run:
    """A tiny LoRA run with dropout, so that repeating it needs every random state."""

    def __init__(self):
        self.model = tiny_model("bert", seed=3)
        self.model.requires_grad_(False)
        torch.manual_seed(0)
        self.method = build(LoraConfig(rank=4, targets=["all"], dropout=0.1), find_sites(self.model))
        head = {f"head.{n}": p.requires_grad_() for n, p in self.model.classifier.named_parameters()}
        self.trained = dict(self.method.named_parameters()) | head
        self.validation = _data(40, seed=9)
        self.rows = []
        self.resumed_at = None

    def on_resume(self, step):
        self.resumed_at = step

    def on_steps(self, row):
        self.rows.append(row)

    def on_epoch(self, row):
        self.rows.append(row)

    def evaluate(self):
        logits = logits_of(self.model, self.validation, 16, "fp32", CPU)
        return OBJECTIVE.score(["accuracy", "f1"], logits, self.validation.labels)

    def fit(self, config=None, checkpoint=None, observers=None, data=None, penalty=lambda: None):
        torch.manual_seed(7)
        with self.method.on(find_sites(self.model)):
            return fit(
                self.model, self.trained, data or _data(), OBJECTIVE.loss, self.evaluate, "accuracy",
                config or _config(), seed=5, device=CPU, checkpoint=checkpoint, observers=observers or [self],
                redraw=self.redraw,
                penalty=penalty,
            )  # fmt: skip

    def redraw(self, random):
        pass

    def state(self):
        return {name: p.detach().clone() for name, p in self.trained.items()}


def _without_times(rows):
    return [{k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")} for row in rows]


def _assert_same_state(one: Run, two: Run):
    assert all(torch.equal(p, two.state()[name]) for name, p in one.state().items())


def test_it_learns_and_leaves_the_rest_alone():
    run = Run()
    frozen = {n: p.clone() for n, p in run.model.named_parameters() if not p.requires_grad}
    fitted = run.fit(_config(epochs=12, lr=1e-2))
    assert fitted.rows[-1]["validation"]["accuracy"] > 0.9
    assert fitted.rows[-1]["loss"] < fitted.rows[0]["loss"]
    assert all(torch.equal(p, frozen[n]) for n, p in run.model.named_parameters() if n in frozen)
    assert not run.model.training


def test_the_same_seed_gives_the_same_run_bit_for_bit():
    one, two = Run(), Run()
    one.fit(), two.fit()
    assert _without_times(one.rows) == _without_times(two.rows)
    _assert_same_state(one, two)


class StopError(Exception):
    pass


class StopAt:
    def __init__(self, step):
        self.step = step

    def on_resume(self, step):
        pass

    def on_steps(self, row):
        if row["step"] >= self.step:
            raise StopError

    def on_epoch(self, row):
        pass


@pytest.mark.parametrize("step", [10, 16, 20])
def test_an_interrupted_run_ends_as_an_undisturbed_one(tmp_path, step):
    whole = Run()
    expected = whole.fit()
    broken, path = Run(), tmp_path / "checkpoint.pt"
    with pytest.raises(StopError):
        broken.fit(checkpoint=path, observers=[StopAt(step)])
    again = Run()
    fitted = again.fit(checkpoint=path)
    assert again.resumed_at == 8 * ((step - 1) // 8)
    assert _without_times(fitted.rows) == _without_times(expected.rows)
    assert _without_times([fitted.best]) == _without_times([expected.best])
    _assert_same_state(whole, again)


class VaryingRun(Run):
    """A run whose method leaves other layers out in each batch."""

    def __init__(self):
        super().__init__()
        sites = find_sites(self.model)
        torch.manual_seed(0)
        self.method = build(AdapterConfig(bottleneck=4, drop="robust"), sites)
        self.trained = {n: p for n, p in self.trained.items() if n.startswith("head.")} | dict(
            self.method.named_parameters()
        )
        self.drawn, self.scored_with = [], []

    def redraw(self, random):
        self.method.redraw(random, find_sites(self.model))
        self.drawn.append(None if random is None else tuple(sorted(self.method.bare)))

    def evaluate(self):
        self.scored_with.append(self.method.bare)
        return super().evaluate()


def test_a_run_that_draws_layers_ends_as_an_undisturbed_one(tmp_path):
    whole, broken, again = VaryingRun(), VaryingRun(), VaryingRun()
    expected = whole.fit()
    assert set(whole.drawn) == {None, (), (0,)} and whole.drawn.count(None) == 3
    assert whole.drawn[:9] != whole.drawn[9:18], "each epoch draws its own"
    assert whole.scored_with == [frozenset()] * 3, "every layer acts where it is scored"
    with pytest.raises(StopError):
        broken.fit(checkpoint=tmp_path / "checkpoint.pt", observers=[StopAt(16)])
    fitted = again.fit(checkpoint=tmp_path / "checkpoint.pt")
    assert again.drawn == whole.drawn[9:], "it goes on behind the first epoch"
    assert _without_times(fitted.rows) == _without_times(expected.rows)
    _assert_same_state(whole, again)


def test_an_epoch_that_was_not_told_to_the_end_is_told_again(tmp_path):
    """Stopped between an epoch's last step and its checkpoint, a run goes on from the epoch before."""
    broken, path = Run(), tmp_path / "checkpoint.pt"
    told = iter([None, StopError])

    class StopAtSecondEpoch(StopAt):
        def on_epoch(self, row):
            if (error := next(told)) is not None:
                raise error

    with pytest.raises(StopError):
        broken.fit(checkpoint=path, observers=[StopAtSecondEpoch(1000)])
    again = Run()
    again.fit(checkpoint=path)
    assert again.resumed_at == 8
    assert [row["epoch"] for row in again.rows if "validation" in row] == [2, 3]


def test_a_finished_checkpoint_trains_no_further(tmp_path):
    run, path = Run(), tmp_path / "checkpoint.pt"
    expected = run.fit(checkpoint=path)
    again = Run()
    fitted = again.fit(checkpoint=path)
    assert fitted.rows == expected.rows and fitted.first_step is None
    _assert_same_state(run, again)


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_named(tmp_path, keep):
    path = tmp_path / "checkpoint.pt"
    Run().fit(_config(epochs=1), checkpoint=path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(UserError, match="cut short.*force=true"):
        Run().fit(checkpoint=path)


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    path = tmp_path / "checkpoint.pt"
    Run().fit(_config(epochs=1), checkpoint=path)
    other = Run()
    other.trained.pop("head.bias")
    with pytest.raises(UserError, match="another model.*head.bias"):
        other.fit(checkpoint=path)


def test_a_loss_that_is_not_a_number_stops_at_its_step():
    run = Run()

    class Poison(StopAt):
        def on_epoch(self, row):
            with torch.no_grad():
                next(iter(run.trained.values())).fill_(float("nan"))

    with pytest.raises(NonFiniteError, match=r"nan at step 9:.*trainer\.lr"):
        run.fit(observers=[Poison(1000)])


def test_weights_that_diverge_in_the_last_step_are_no_result():
    run = Run()

    class Poison(StopAt):
        def on_steps(self, row):
            with torch.no_grad():
                next(iter(run.trained.values())).view(-1)[0] = float("inf")

    with pytest.raises(NonFiniteError, match=r"updates\.query\.0\.a became NaN or infinite by step 8"):
        run.fit(_config(epochs=1), observers=[Poison(0)])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_no_scores(value):
    run = Run()
    with torch.no_grad():
        run.model.classifier.bias[0] = value
    with pytest.raises(NonFiniteError, match="outputs are not finite"):
        run.evaluate()


def test_max_steps_ends_training_within_an_epoch_and_the_schedule_spans_it(tmp_path):
    whole, broken = Run(), Run()
    fitted = whole.fit(_config(max_steps=11, warmup=0.0))
    assert [row["step"] for row in fitted.rows] == [8, 11] and fitted.steps == 11
    rates = [row["lr"] for row in whole.rows if "lr" in row]
    assert rates[-1] == pytest.approx(5e-3 / 11) and all(row["steps"] == 11 for row in whole.rows if "lr" in row)
    path = tmp_path / "checkpoint.pt"
    for _ in range(2):  # the second has nothing left to do but the last epoch's rest
        broken.fit(_config(max_steps=11, warmup=0.0), checkpoint=path)
    _assert_same_state(whole, broken)


def test_max_steps_beyond_the_epochs_changes_nothing():
    whole, limited = Run(), Run()
    whole.fit(), limited.fit(_config(max_steps=1000))
    _assert_same_state(whole, limited)


def test_a_signal_stops_training_between_two_steps(tmp_path):
    run, undisturbed = Run(), Run()
    undisturbed.fit()

    class Signal(StopAt):
        def on_steps(self, row):
            if row["epoch"] == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        run.fit(checkpoint=path, observers=[Signal(0)])
    run.fit(checkpoint=path)
    _assert_same_state(run, undisturbed)


def test_accumulated_gradients_equal_those_of_a_large_batch():
    """Two batches of 8 in one step train as one batch of 16 with the same rows."""
    data, order = _data(32), [list(range(16)), list(range(16, 32))]

    class Ordered(EncodedTexts):
        def shuffled(self, size, seed, epoch):
            return [group[i : i + size] for group in order for i in range(0, 16, size)]

    ordered = Ordered(data.columns, data.offsets, data.labels, data.padding)
    one, two = Run(), Run()
    for run in (one, two):
        run.model.config.hidden_dropout_prob = 0
        for module in run.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        object.__setattr__(run.method.config, "dropout", 0.0)
    one.fit(_config(epochs=1, batch_size=16), data=ordered)
    two.fit(_config(epochs=1, batch_size=8, accumulate=2), data=ordered)
    for name, parameter in one.state().items():
        torch.testing.assert_close(parameter, two.state()[name], rtol=1e-4, atol=1e-6)


def test_patience_stops_and_the_best_epoch_is_kept():
    run = Run()
    scores = iter([0.5, 0.7, 0.6, 0.7, 0.9])
    run.evaluate = lambda: {"accuracy": next(scores)}
    fitted = run.fit(_config(epochs=5, patience=2))
    assert [row["epoch"] for row in fitted.rows] == [1, 2, 3, 4]
    assert fitted.best["epoch"] == 2


def test_lora_dropout_is_off_outside_of_training():
    run = Run()
    object.__setattr__(run.method.config, "dropout", 0.9)
    with torch.no_grad():
        for parameter in run.method.parameters():
            parameter.normal_()
    with run.method.on(find_sites(run.model)):
        assert run.evaluate() == run.evaluate()
        run.model.train()
        ids = torch.arange(10, 18)[None]
        assert not torch.equal(run.model(input_ids=ids).logits, run.model(input_ids=ids).logits)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_penalty_counts_once_a_step_and_is_not_told(accumulate):
    plain, held, calls = Run(), Run(), []
    weight = next(name for name in held.trained if name.endswith(".a"))
    start = held.trained[weight].detach().clone()

    def penalty():
        calls.append(1)
        return 1e6 * (held.trained[weight] - start).square().sum()

    config = _config(accumulate=accumulate, clip=None, weight_decay=0.0)
    steps = plain.fit(config).steps
    held.fit(config, penalty=penalty)
    assert len(calls) == steps
    moved = [(run.trained[weight] - start).abs().max() for run in (plain, held)]
    assert moved[1] < 0.5 * moved[0], "it holds what it is about"
    assert max(row["loss"] for row in held.rows) < 2, "a loss is the task's"
