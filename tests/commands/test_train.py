"""Settings of a training run that change how it computes, not what."""

import errno
from pathlib import Path

import forked
import pytest
from tiny import method_configs

from peftbench.cli import main
from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.errors import NonFiniteError
from peftbench.runs.find import find_runs
from peftbench.runs.identity import run_id
from peftbench.runs.record import Record, Status


def test_bf16_and_fp32_agree(train_tiny):
    changes = ("method=lora", "model.dropout=0.0", "seed=31")
    losses = {}
    for precision in ("fp32", "bf16"):
        result = train_tiny("opinions", *changes, f"trainer.precision={precision}").read()
        losses[precision] = result.metrics["validation"]["loss"]
        assert result.environment.precision == precision
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(method_configs()))
def test_compiled_and_eager_agree(train_tiny, tiny_method, method):
    changes = (*tiny_method(method), "model.dropout=0.0", "seed=32", "trainer.epochs=1")
    losses = [
        train_tiny("opinions", *changes, f"trainer.compile={value}").read().metrics["validation"]["loss"]
        for value in ("false", "true")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_the_record_says_under_what_it_was_made(tiny_run):
    result = tiny_run.read()
    assert result.environment.versions["torch"] and result.environment.device and result.environment.threads == 1
    assert len(result.time.per_epoch) == 2
    assert result.parameters.method == result.parameters.closed_form


def test_what_is_of_the_process_is_told_of_its_first_run_alone(tiny_model_dir, tiny_data_dir, tmp_path):
    opinions = tiny_data_dir / "opinions"
    line = ["-m", "peftbench", "train", "-m", "seed=0,1", "model=local", f"model.path={tiny_model_dir}"]
    line += ["task=text_file", f"task.splits.train={opinions / 'train.csv'}", "task.max_length=32", "device=cpu"]
    line += [f"task.splits.validation={opinions / 'validation.csv'}", "trainer.epochs=1", "measure.latency=false"]
    forked.run([*line, f"output_dir={tmp_path}", "threads=1"], check=True, capture_output=True)
    first, second = (run.result for run in find_runs(tmp_path))
    assert first.time.startup > 0 and first.memory.host_peak > 50 * 2**20
    assert second.time.startup is None and second.memory.host_peak is None


def test_a_run_learns_the_same_behind_another_in_one_process(train_tiny, tmp_path):
    # `full` and `adapter` change backbone parameters in place of the backbone's own while they train
    records = []
    for number, before in enumerate((None, "full", "adapter")):
        for method in filter(None, (before, "lora")):
            records.append(train_tiny("opinions", f"method={method}", "seed=5", f"experiment=order{number}"))
    histories = [record.history() for record in records if "lora" in record.folder.name]
    assert len(histories) == 3
    losses = [[row["loss"] for row in history] for history in histories]
    assert losses[0] == losses[1] == losses[2]


def test_a_run_that_diverges_in_its_last_step_has_failed(train_tiny, tmp_path):
    changes = ("method=full", "trainer.epochs=1", "trainer.batch_size=48", "trainer.warmup=0.0", "trainer.lr=1e30")
    with pytest.raises(NonFiniteError, match="not finite"):
        train_tiny("opinions", *changes, f"output_dir={tmp_path}")
    (path,) = tmp_path.glob("*/*/result.json")
    result = Record(path.parent).read()
    assert result.status == Status.FAILED and "not finite" in (result.error or "") and not result.evaluations


def test_how_much_memory_is_spared_makes_no_other_run_and_fewer_steps_do():
    ids = {
        change: run_id(resolve(compose([change])).plain())
        for change in ("trainer.checkpointing=false", "trainer.checkpointing=true", "trainer.max_steps=5")
    }
    assert ids["trainer.checkpointing=false"] == ids["trainer.checkpointing=true"] != ids["trainer.max_steps=5"]


def test_a_finished_run_on_a_read_only_disk_is_shown(tiny_run, monkeypatch, capsys):
    def refusing(method):
        def refuse_there(path, *arguments, **options):
            if path.is_relative_to(tiny_run.folder):
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            return method(path, *arguments, **options)

        return refuse_there

    for name in ("mkdir", "write_text", "write_bytes", "touch", "unlink", "rename", "replace"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
    assert main(["train", *tiny_run.read().overrides]) == 0
    assert "finished already" in capsys.readouterr().out
