"""The dispatch table: the first word of the command line → the module that does it. Imports nothing heavy."""

import os
import sys
import time

STARTED = time.time()

# command → what it does; the module of the same name in peftbench.commands has main(argv) -> exit code
COMMANDS = {
    "train": "train one method on one task; with -m, every combination of comma-separated values",
    "sweep": "train what a table still lacks and show it, or search for the best settings",
    "table": "show or write a table from the runs there are",
    "evaluate": "score a finished run again, on any split",
    "predict": "labels and probabilities for text on the line, in a file or on standard input",
    "params": "parameter counts and shares, exact, without loading any weights",
    "runs": "the runs there are: status, score, age",
    "list": "what can be chosen: methods, models, tasks, tables",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for a failed run, 2 for the user's mistake."""
    # oneDNN keeps what it made for each shape, and batches have many: a fifth less memory at the same speed
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    try:
        code = _answer(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # a reader that has gone is to show here, not when Python shuts down
        return code
    except BrokenPipeError:
        # the reader has gone (`peftbench --help | head`): nothing is wrong, and nothing is left to be flushed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _answer(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if argv[0] == "--version":
        from peftbench import __version__

        print(f"peftbench {__version__}")
        return 0
    return _dispatch(argv[0], argv[1:])


def _dispatch(command: str, rest: list[str]) -> int:
    from importlib import import_module

    from peftbench.errors import INTERRUPTED, PeftbenchError, UserError, nearest

    try:
        if command in ("-sc", "--shell_completion", "--shell-completion"):
            from peftbench.commands.completion import main as complete

            return complete(rest)
        if command not in COMMANDS:
            raise UserError(f"no command {command!r}. {nearest(command, COMMANDS)}")
        code: int = import_module(f"peftbench.commands.{command}").main(rest)
        return code
    except PeftbenchError as error:
        print(f"peftbench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("peftbench: interrupted", file=sys.stderr)
        return INTERRUPTED


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: peftbench COMMAND …\n\n"
        "Which parameter-efficient fine-tuning method should I use, and what does it cost me?\n\n"
        f"{lines}\n\n"
        "  peftbench COMMAND --help says more; peftbench train --help shows every setting.\n"
        '  TAB completion: eval "$(peftbench -sc install=bash)"\n\n'
        "examples\n"
        "  peftbench train method=adapter\n"
        "  peftbench train method=lora method.rank=4 task=mrpc\n"
        "  peftbench train -m method=adapter,lora,prefix,prompt seed=0,1\n"
        "  peftbench sweep table=lab/bottleneck model=minilm seeds=3\n"
    )


if __name__ == "__main__":
    sys.exit(main())
