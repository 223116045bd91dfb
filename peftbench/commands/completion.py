"""TAB completion: what the shell's completion function, installed by `peftbench -sc install=bash`, asks for.

Hydra completes the overrides behind `train` and `params`; the command word before them, and the other
commands, are completed here.
"""

import argparse
import io
import os
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

from peftbench.cli import COMMANDS
from peftbench.errors import UserError

_PROGRAM = "peftbench"
_SHELLS = ("bash", "zsh", "fish")
_WITH_OVERRIDES = ("train", "params")
_WITH_RUN = ("evaluate", "predict", "runs")

# bash: a complete word is followed by a space; what goes on behind = . / is not
_BASH_SPACE = """
hydra_bash_completion_peftbench()
{
    hydra_bash_completion
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} != *[=./] ]]; then
        compopt +o nospace
    fi
}
"""


def main(argv: list[str]) -> int:
    """Answer `install=SHELL`, `uninstall=SHELL` (a script to evaluate) or `query=SHELL` (the candidates).

    A query reads the line from COMP_LINE, up to COMP_POINT where that is set. Returns the exit code; raises
    UserError for anything else than these three.
    """
    action, _, shell = argv[0].partition("=") if len(argv) == 1 else ("", "", "")
    if action not in ("install", "uninstall", "query") or shell not in _SHELLS:
        raise UserError(f"-sc takes install=SHELL or uninstall=SHELL, SHELL being {', '.join(_SHELLS)}")
    if action == "query":
        print(("\n" if shell == "fish" else " ").join(candidates(_line())))
    else:
        print(_hydra(f"{action}={shell}"))
    return 0
