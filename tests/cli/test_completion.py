"""TAB completion as a real bash asks for it."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import peftbench
from peftbench import cli
from peftbench.commands import completion
from peftbench.runs.identity import run_id
from peftbench.runs.record import Record
from peftbench.runs.result import Status

BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="no bash on this machine")

# calls the installed function as bash does for the line in $1
ASK = """
ask() {
    COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=()
    read -ra COMP_WORDS <<< "$1"
    [[ $1 == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    peftbench_completion
    echo "${COMPREPLY[@]}"
}
"""

LINES = {
    "peftbench tr": "train",
    "peftbench ": "advise audit evaluate export import list params plan predict recommend runs serve sweep table train",
    "peftbench sweep table=lab/b": "table=lab/bottleneck",
    "peftbench sweep table=smoke on_": "on_error=",
    "peftbench table lab/me": "lab/methods",
    "peftbench train me": "measure. measure= method. method=",
    "peftbench train method=l": "method=lora",
    "peftbench train method=lora method.ra": "method.rank=",
    "peftbench train method=prompt method.ra": "",
    "peftbench train -m task=stsb": "task=stsb task=stsb_binary",
    "peftbench train --multirun method=adapter,lora task=stsb": "task=stsb task=stsb_binary",
    "peftbench train -m method=adapter,lo": "method=adapter,lora",
    "peftbench train --multi": "--multirun",
    "peftbench train method=nope logger=": "logger=none logger=wandb",
    "peftbench params model=mini": "model=minilm",
    "peftbench params --json model=mini": "model=minilm",
    "peftbench list m": "methods models",
    "peftbench list methods ": "",
    "peftbench list --j": "--json",
    "peftbench runs --status f": "failed finished",
    "peftbench evaluate --la": "--latency",
    "peftbench advise --ta": "--task-type --tasks",
    "peftbench advise --task-type p": "pair",
    "peftbench import --ta": "--task",
    "peftbench import made model=mini": "model=minilm",
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With a `peftbench` on the path that is this one."""
    program = tmp_path / "bin" / "peftbench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m peftbench "$@"\n')
    program.chmod(0o755)
    root = str(Path(peftbench.__file__).parents[1])
    path = f"{program.parent}:{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": root, "TERM": "dumb", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}


def bash(script: str, environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(BASH), "--norc", "-c", script],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.long
@needs_bash
def test_what_bash_offers(environment: dict[str, str], tmp_path: Path) -> None:
    (empty := tmp_path / "empty").mkdir()
    asked = "\n".join(f"ask {line!r}" for line in LINES)
    process = bash(f'eval "$(peftbench -sc install=bash)"\n{ASK}{asked}', environment, empty)
    assert process.stderr == ""
    assert dict(zip(LINES, process.stdout.splitlines(), strict=True)) == LINES


@needs_bash
def test_runs_are_offered(environment: dict[str, str], tmp_path: Path) -> None:
    config = {
        "experiment": "demo",
        "seed": 0,
        "method": {"name": "lora"},
        "task": {"name": "mrpc", "source": "hub"},
        "model": {"name": "minilm", "source": "hub"},
        "trainer": {},
    }
    done = Record.create(tmp_path / "outputs" / "demo" / run_id(config), config, [])
    done.finish()
    other = {**config, "experiment": "other", "seed": 1}
    failed = Record.create(tmp_path / "outputs" / "other" / run_id(other), other, [])
    failed.fail(Status.FAILED, "stopped")
    lines = {
        "peftbench predict lo": done.folder.name,
        "peftbench evaluate demo/": f"demo/{done.folder.name}",
        f"peftbench evaluate {done.folder.name} --json --s": "--split",
        "peftbench runs ": f"{done.folder.name} {failed.folder.name}",
        "peftbench runs --experiment other l": failed.folder.name,
        "peftbench predict --output-dir outputs/other lo": "",
    }
    asked = "\n".join(f"ask {line!r}" for line in lines)
    (there := tmp_path / "there").mkdir()
    (there / "outputs").symlink_to(tmp_path / "outputs")
    process = bash(f'eval "$(peftbench -sc install=bash)"\n{ASK}{asked}', environment, there)
    assert process.stderr == ""
    assert dict(zip(lines, process.stdout.splitlines(), strict=True)) == lines


@needs_bash
def test_uninstall(environment: dict[str, str], tmp_path: Path) -> None:
    script = """
    eval "$(peftbench -sc install=bash)"; complete -p peftbench
    eval "$(peftbench -sc uninstall=bash)"; complete -p peftbench; declare -F
    """
    process = bash(script, environment, tmp_path)
    assert process.stdout == "complete -o default -o nospace -F peftbench_completion peftbench\n"
    assert "no completion specification" in process.stderr


@needs_bash
def test_tab_on_a_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(BASH), "--norc", "--noprofile", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "PS1": "> "},
        cwd=tmp_path,
        start_new_session=True,
    )
    os.close(theirs)

    def until(expected: str, seconds: float = 30) -> str:
        seen, end = "", time.monotonic() + seconds
        while expected not in seen and time.monotonic() < end:
            if select.select([ours], [], [], 0.5)[0]:
                seen += os.read(ours, 4096).decode().replace("\a", "")
        assert expected in seen, repr(seen)
        return seen

    try:
        os.write(ours, b'eval "$(peftbench -sc install=bash)"; echo rea""dy\n')
        until("ready")
        os.write(ours, b"peftbench tr\t")
        until("peftbench train ")
        os.write(ours, b"meth\t")
        until("method")
        os.write(ours, b"=lo\t")
        until("=lora ")
        os.write(ours, b"method.ra\t")
        until("method.rank=")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/__main__.py", "-sc", f"install={shell}"])
    assert cli.main(["-sc", f"install={shell}"]) == 0
    assert "peftbench" in (script := capsys.readouterr().out)
    assert "-sc query=" in script
    assert ("compdef _peftbench peftbench" in script) == (shell == "zsh")
    assert cli.main(["-sc", f"uninstall={shell}"]) == 0
    assert ("compdef -d peftbench" if shell == "zsh" else "hydra") in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["install=csh"], ["remove=bash"], ["query=bash", "extra"]])
def test_bad_arguments(argv: list[str], capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["-sc", *argv]) == 2
    assert capsys.readouterr().err.startswith("peftbench: -sc takes install=SHELL or uninstall=SHELL")


def test_the_cursor_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("COMP_LINE", "peftbench pre lora")
    monkeypatch.setenv("COMP_POINT", str(len("peftbench pre")))
    assert completion.main(["query=fish"]) == 0
    assert capsys.readouterr().out == "predict\n"


@pytest.mark.parametrize(
    "line", ["", "peftbench", "peftbench nonsense x", "peftbench train --config-dir ", "peftbench train 'a {"]
)
def test_nothing_to_offer(line: str, capsys: pytest.CaptureFixture) -> None:
    assert completion.candidates(line) == []
    assert capsys.readouterr() == ("", "")
