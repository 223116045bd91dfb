"""Pauses a run at each of its file operations, lets another process take it over meanwhile, and lets it go on.

`python takeover.py OUTPUTS END STEP OVERRIDE…` prints a line of JSON for each pause, at every STEPth operation; END is
`finishes` or `fails`: what becomes of the paused run's training.
"""

import contextlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

import peftbench.sweeps.imported  # noqa: F401 - once, for all forks
from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.errors import PeftbenchError
from peftbench.runs import lock
from peftbench.runs.execute import execute_run
from peftbench.runs.observers import RecordHistory
from peftbench.runs.prepare import prepare

# what the audit hook is told before a file is touched
OPERATIONS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.utime", "shutil.rmtree")


def main() -> None:
    outputs, end, step, *overrides = sys.argv[1:]
    torch.set_num_threads(1)
    config = resolve(compose([*overrides, f"output_dir={outputs}"]))
    prepare(config, reuse=True)  # loaded once, for all forks

    def train() -> int:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            try:
                execute_run(config, overrides)
            except PeftbenchError as error:
                print(error, file=sys.stderr)
                return error.exit_code
        return 0

    number = 0
    while True:
        shutil.rmtree(outputs, ignore_errors=True)
        reads, writes = os.pipe(), os.pipe()
        paused = fork(lambda reads=reads, writes=writes, number=number: run_paused(train, number, end, reads, writes))
        os.close(reads[1])
        os.close(writes[0])
        operation = os.read(reads[0], 1000).decode()
        taken_over_by = fork(lambda: take_over(train)) if operation else None
        codes = [os.waitpid(taken_over_by, 0)[1]] if taken_over_by else []
        if operation:
            os.write(writes[1], b"go on")
        codes.append(os.waitpid(paused, 0)[1])
        for end_of_pipe in (reads[0], writes[1]):
            os.close(end_of_pipe)
        if not operation:  # the run has no such many operations
            return
        codes = [os.waitstatus_to_exitcode(code) for code in codes]
        print(json.dumps({"operation": operation, "codes": codes, "files": files_of(Path(outputs))}), flush=True)
        number += int(step)


def fork(function: Callable[[], int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def run_paused(train: Callable[[], int], number: int, end: str, tell: tuple, hear: tuple) -> int:
    """Train, but pause at the operation of this number."""
    os.close(tell[0])
    os.close(hear[1])
    count = 0

    def pause(event: str, arguments: tuple) -> None:
        nonlocal count
        if event not in OPERATIONS or "outputs" not in str(arguments[0]):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return  # what is only read leaves nothing behind
        count += 1
        if count == number + 1:
            os.write(tell[1], f"{event} {arguments[0]}".encode())
            os.read(hear[0], 100)

    if end == "fails":
        RecordHistory.on_epoch = lambda self, row: 1 / 0
    sys.addaudithook(pause)
    return train()


def take_over(train: Callable[[], int]) -> int:
    """Train as another process does for which the paused one is dead."""
    lock._is_alive = lambda owner, folder: False
    return train()


def files_of(outputs: Path) -> dict[str, str]:
    """Return the content of each file of the record, but of its log, which tells of earlier failures too."""
    (folder,) = (path.parent for path in outputs.rglob("result.json"))
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="latin-1")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "train.log"
    }


if __name__ == "__main__":
    main()
