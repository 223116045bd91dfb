import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import forked
import pytest

import peftbench
from peftbench import cli
from peftbench.runs.record import Record

ROOT = Path(peftbench.__file__).parents[1]
COMMANDS = [
    "train",
    "sweep",
    "table",
    "plan",
    "evaluate",
    "predict",
    "serve",
    "export",
    "import",
    "params",
    "runs",
    "advise",
    "recommend",
    "audit",
    "list",
]


def command(*argv: str, options: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *options, "-m", "peftbench", *argv]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def typed(*argv: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command(*argv), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("argv", [(), ("-h",), ("--help",)])
def test_help(argv: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    assert cli.main(list(argv)) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: peftbench COMMAND")
    assert [line.split()[0] for line in text.splitlines() if re.match(r"  [a-z]+  +\w", line)] == COMMANDS


def test_every_command_has_a_module_and_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in COMMANDS:
        assert cli.main([name, "--help"]) == 0
        assert f"peftbench {name}" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_version(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"peftbench {peftbench.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "code", "line"),
    [
        (["trian"], 2, "peftbench: no command 'trian'. Did you mean train?"),
        (
            ["xyzzy"],
            2,
            "peftbench: no command 'xyzzy'. Choose from: advise, audit, evaluate, export, import, list, params,"
            " plan, predict, recommend, runs, serve, sweep, table, train.",
        ),
        (["list", "task"], 2, "peftbench: no list of 'task'. Did you mean tasks or tables?"),
        (["train", "method=lroa"], 2, "peftbench: method=lroa: there is no such method. Did you mean lora"),
        (["evaluate", "lora"], 2, "peftbench: No run 'lora': there are no runs under outputs."),
        (["predict", "lora", "text"], 2, "peftbench: No run 'lora': there are no runs under outputs."),
        (["runs"], 0, ""),
    ],
)
def test_exit_codes(argv: list[str], code: int, line: str, tmp_path: Path) -> None:
    process = typed(*argv, cwd=tmp_path)
    assert process.returncode == code
    assert process.stderr.startswith(line)
    assert process.stderr.count("\n") == (1 if line else 0)


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from peftbench.commands import runs

    def interrupt(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "main", interrupt)
    assert cli.main(["runs"]) == 130
    assert capsys.readouterr().err == "peftbench: interrupted\n"


@pytest.mark.parametrize("argv", [["--help"], ["list"], ["list", "--json"]])
def test_a_reader_that_has_gone(argv: list[str], tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        command(*argv), stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(), timeout=60
    )
    os.close(write)
    assert process.stderr == b""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("argv", "seconds"),
    [
        (["--help"], 0.3),
        (["train", "--help"], 1.5),
        (["list"], 0.5),
        (["runs"], 0.5),
        (["-sc", "query=bash"], 0.8),
    ],
)
def test_light_commands_are_quick_and_import_no_torch(argv: list[str], seconds: float, tmp_path: Path) -> None:
    used = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.run(
            command(*argv, options=("-X", "importtime")),
            cwd=tmp_path,
            env=environment(COMP_LINE="peftbench train method=l"),
            capture_output=True,
            text=True,
            timeout=60,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert process.returncode == 0
    imported = re.findall(r"^import time:.*\| +(\S+)$", process.stderr, re.MULTILINE)
    assert "peftbench.cli" in imported
    heavy = {"torch", "transformers", "datasets", "scipy", "wandb", "numpy"}
    assert not heavy & {name.partition(".")[0] for name in imported}
    assert min(used) < seconds  # of the processor: other processes do not count


@pytest.mark.parametrize("name", COMMANDS)
def test_importing_a_command_imports_no_torch(name: str) -> None:
    code = (  # "import" is a command too, and no name in a statement
        "import importlib, sys, peftbench.cli;"
        f" importlib.import_module('peftbench.commands.{name}'); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=60)


def test_predicts_as_a_user_types_it(tiny_run: Record) -> None:
    outputs = tiny_run.folder.parents[1]
    line = ["predict", f"opinions/{tiny_run.folder.name}", "the film was good", "--output-dir", "."]
    process = forked.run(["-m", "peftbench", *line], cwd=outputs, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    header, answer = process.stdout.splitlines()
    assert header == "prediction\tbad\tgood\ttext"
    assert answer.split("\t")[3] == "the film was good"
