"""The launchers that come with peftbench: their configs, what is said where one is not installed, joblib itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import hydra
import pytest
from cluster.disturbed import sweep
from hydra import initialize_config_dir
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from peftbench import cli
from peftbench.commands.sweep import _measured_at_once
from peftbench.config.folder import CONFIG_PATH
from peftbench.sweeps.launch import runs_at_once
from peftbench.sweeps.request import read_request

LAUNCHERS = {
    "joblib": "hydra_plugins.peftbench_joblib.JoblibLauncher",
    "slurm": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "ray": "hydra_plugins.peftbench_ray.RayLauncher",
}


def _composed(*overrides: str):
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        return hydra.compose("train", overrides=list(overrides), return_hydra_config=True).hydra


def test_every_launcher_composes():
    assert {path.stem for path in (Path(CONFIG_PATH) / "hydra" / "launcher").glob("*.yaml")} == set(LAUNCHERS)
    for name, target in LAUNCHERS.items():
        config = _composed(f"hydra/launcher={name}", "output_dir=there")
        assert config.launcher._target_ == target
        OmegaConf.to_container(config.launcher, resolve=True, throw_on_missing=True)
    assert _composed("hydra/launcher=joblib", "hydra.launcher.n_jobs=3").launcher.n_jobs == 3


def test_a_slurm_job_script(tmp_path):
    """What the script asks Slurm for; submitit refuses settings it does not know."""
    submitit = pytest.importorskip("submitit")
    config = OmegaConf.to_container(_composed("hydra/launcher=slurm", "hydra.launcher.partition=gpu").launcher)
    of_submitit = {"_target_", "submitit_folder", "max_num_timeout"}
    general = {"name", "timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes"}
    general |= {"stderr_to_stdout"}
    settings = {k if k in general else f"slurm_{k}": v for k, v in config.items() if k not in of_submitit}
    settings["name"] = "peftbench"
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "srun").touch(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder))
        executor = submitit.AutoExecutor(tmp_path, cluster="slurm", slurm_max_num_timeout=config["max_num_timeout"])
        executor.update_parameters(**settings)
        script = executor._executor._make_submission_file_text("run", "uid")
    for line in ("partition=gpu", "requeue", "signal=USR2@120", "cpus-per-task=4", "time=240", "mem=16GB"):
        assert f"#SBATCH --{line}\n" in script, script
    assert script.index("export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK") < script.index("srun --unbuffered")


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_that_is_not_installed(name, tmp_path, monkeypatch, capsys):
    if name in ("joblib", "ray"):
        monkeypatch.setitem(sys.modules, name, None)
    else:
        monkeypatch.delitem(Plugins.instance().class_name_to_class, LAUNCHERS[name], raising=False)
    for words in (["train", "-m"], ["sweep", "table=smoke"]):
        code = cli.main([*words, f"hydra/launcher={name}", f"output_dir={tmp_path}"])
        error = capsys.readouterr().err
        assert code == 2
        assert error == f"peftbench: hydra/launcher={name} is not installed: pip install 'peftbench[{name}]'\n"


def test_slurm_away_from_a_cluster(tmp_path, monkeypatch, capsys):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["train", "-m", "hydra/launcher=slurm", f"output_dir={tmp_path}"]) == 2
    assert "no srun here" in capsys.readouterr().err


def test_a_job_that_slurm_does_not_take(tiny_model_dir, tiny_data_dir, tmp_path, monkeypatch, capsys):
    pytest.importorskip("submitit")
    outputs, elsewhere = tmp_path / "outputs", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for name, script in (("sbatch", "echo 'invalid partition specified: nope' >&2; exit 1"), ("srun", "exit 0")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert cli.main(sweep(outputs, tiny_model_dir, tiny_data_dir, "hydra/launcher=slurm")[3:]) == 2
    assert "the cluster takes no such job: invalid partition specified: nope" in capsys.readouterr().err
    assert list(outputs.glob(".multirun/slurm/*")) and not list(elsewhere.iterdir()), "scripts lie with the records"


@pytest.mark.parametrize(
    ("settings", "runs"),
    [
        ([], 1),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"], 3),
        (["hydra/launcher=joblib"], os.cpu_count()),
        (["hydra/launcher=slurm", "hydra.launcher.array_parallelism=5"], 5),
        (["hydra/launcher=ray", "hydra.launcher.remote.num_cpus=0.5"], 2 * os.cpu_count()),
    ],
)
def test_how_many_runs_a_launcher_has_under_way(settings, runs):
    assert runs_at_once(settings) == runs


@pytest.mark.parametrize(
    ("settings", "here"),
    [
        ([], True),
        (["hydra/launcher=joblib"], True),
        (["hydra/launcher=ray"], True),
        (["hydra/launcher=ray", "hydra.launcher.address=head:6379"], False),
        (["hydra/launcher=slurm"], False),
    ],
)
def test_which_launchers_leave_measuring_to_the_sweep(settings, here):
    request = read_request(["table=lab/bottleneck", *settings])
    told = _measured_at_once(request, SimpleNamespace(planned=request.planned[0]))
    assert ("measure.training_step=true" in told) == (not here)


@pytest.mark.long
def test_joblib_divides_the_cores_among_its_runs(tiny_model_dir, tiny_data_dir, tmp_path, capsys):
    joblib = pytest.importorskip("joblib")

    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "threads=null", "trainer.epochs=1"]
    line = sweep(tmp_path, tiny_model_dir, tiny_data_dir, *launcher)
    done = subprocess.run(line, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("cluster/*/result.json")]
    assert [result["status"] for result in results] == ["finished"] * 2
    assert [result["environment"]["threads"] for result in results] == [max(1, joblib.cpu_count() // 2)] * 2
    code = cli.main([*line[3:], "task.max_length=9999", "hydra.launcher.n_jobs=1"])
    captured = capsys.readouterr()
    assert code == 2 and "task.max_length=9999" in captured.out, captured.err
