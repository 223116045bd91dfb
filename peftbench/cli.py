"""The dispatch table: the first word of the command line → the module that does it. Imports nothing heavy."""

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.processor import has_bf16

if TYPE_CHECKING:
    from peftbench.errors import PeftbenchError

STARTED = time.time()

ENVIRONMENT = {
    # oneDNN keeps what it made for so many shapes: in bf16, where that takes long, all that come up; in fp32 few
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024" if has_bf16() else "32",
    # torch asks Linux for pages of 2 MiB for its large tensors on the CPU
    "THP_MEM_ALLOC_ENABLE": "1",
}
# command → what it does; the module of the same name in peftbench.commands has main(argv) -> exit code
COMMANDS = {
    "train": "train one method on one task; with -m, every combination of comma-separated values",
    "sweep": "train the runs that a table is missing and show it, or search for the best settings",
    "table": "show a table of the existing runs, or write it to a file",
    "plan": "estimate what differences a table can detect with how many seeds, and how long that takes; trains nothing",
    "evaluate": "score a finished run again, on any split",
    "predict": "predict labels and probabilities for text given as arguments, in a file or on standard input",
    "serve": "serve several finished runs on one backbone over HTTP",
    "export": "export a finished run to transformers, Hugging Face peft or AdapterHub, and check that it works there",
    "import": "import a Hugging Face peft or AdapterHub adapter as a run",
    "params": "count parameters and their shares exactly, without loading any weights",
    "runs": "list the runs with their status, score and age",
    "advise": "suggest a method and its size, from your own runs or the measured tables included with peftbench",
    "recommend": "train methods and sizes on your own file, within limits, and recommend one",
    "audit": "check which differences hold in others' results: peft's comparison, lm-evaluation-harness, a CSV",
    "list": "list the available methods, models, tasks and tables",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for a failed run, 2 for the user's mistake, 130 if interrupted."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    is_process = argv is None  # not a call of Python code, which goes on behind it
    argv = sys.argv[1:] if argv is None else argv
    if not _open_streams():
        print("peftbench: standard output is closed: give it a file, or /dev/null", file=sys.stderr)
        return 1
    try:
        code = _answer(argv)
        if is_process:
            from peftbench.interruption import ignore_interrupts

            ignore_interrupts()
        sys.stdout.flush()  # what cannot be written is to show here, not when Python shuts down
        return code
    except BrokenPipeError:
        _drop_output()  # the reader has gone (`peftbench --help | head`): nothing is wrong
        return 0
    except OSError as error:  # of standard output: `_answer` lets no other through
        _drop_output()
        print(f"peftbench: cannot write the standard output: {error.strerror or error}", file=sys.stderr)
        return 1


def _open_streams() -> bool:
    """Put something in the place of closed streams, for code relies on them; False where standard output is closed."""
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        return False
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # what the terminal's encoding lacks stops nothing
    return True


def _drop_output() -> None:
    """Let what is left in the buffers go nowhere: Python would try again, and complain, when it shuts down."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _answer(argv: list[str]) -> int:
    """Run the command that `argv` names; only what standard output raises comes through, besides the exit code."""
    from peftbench.errors import INTERRUPTED, PeftbenchError
    from peftbench.interruption import interrupt_on_sigterm

    interrupt_on_sigterm()
    try:
        return _dispatch(argv)
    except PeftbenchError as error:
        return _fail(error)
    except KeyboardInterrupt:
        print("peftbench: interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as exit:  # argparse behind --help, rich where the reader has gone
        return exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None:
            print(flush=True)  # raises again where it is standard output that cannot be written
        from peftbench.crash_log import log_crash

        return _fail(log_crash(error, argv))


def _fail(error: "PeftbenchError") -> int:
    from peftbench.terminal import print_error

    print_error(error)
    return error.exit_code


def _dispatch(argv: list[str]) -> int:
    from importlib import import_module

    from peftbench.errors import UserError, nearest

    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0
    command, *rest = argv
    if command == "--version":
        from peftbench import __version__

        print(f"peftbench {__version__}")
        return 0
    if command in ("-sc", "--shell_completion", "--shell-completion"):
        from peftbench.commands.completion import main as complete

        return complete(rest)
    if command not in COMMANDS:
        raise UserError(f"no command {command!r}. {nearest(command, COMMANDS)}")
    code: int = import_module(f"peftbench.commands.{command}").main(rest)
    return code


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: peftbench COMMAND …\n\n"
        "Which parameter-efficient fine-tuning method should I use, and what does it cost me?\n\n"
        f"{lines}\n\n"
        "  peftbench COMMAND --help shows the details; peftbench train --help lists every setting.\n"
        '  TAB completion: eval "$(peftbench -sc install=bash)"\n\n'
        "examples\n"
        "  peftbench train method=adapter\n"
        "  peftbench train method=lora method.rank=4 task=mrpc\n"
        "  peftbench train -m method=adapter,lora,prefix,prompt seed=0,1\n"
        "  peftbench sweep table=lab/bottleneck model=minilm seeds=3\n"
    )


if __name__ == "__main__":
    sys.exit(main())
