"""TAB completion: what the function that `peftbench -sc install=bash` gives the shell asks for.

Hydra completes the overrides behind `train`, `sweep`, `table` and `params`; the command word in front of them, of
which Hydra knows nothing, tables' names, and the other commands are completed here.
"""

import argparse
import io
import os
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

from peftbench.cli import COMMANDS
from peftbench.errors import UserError

_SHELLS = ("bash", "zsh", "fish")
# command → the config whose keys and groups its overrides are of
_WITH_OVERRIDES = {
    "train": "train",
    "import": "train",
    "params": "train",
    "sweep": "sweep",
    "plan": "sweep",
    "table": "sweep",
}
_WITH_RUN = ("evaluate", "export", "predict", "runs", "serve")

# Hydra's function never puts a space behind a word, for an override may go on; a whole word is to have one.
_BASH = """
peftbench_completion()
{
    hydra_bash_completion
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} != *[=./] ]]; then
        compopt +o nospace 2> /dev/null
    fi
}
complete -o nospace -o default -F peftbench_completion peftbench"""
_ZSH = """
_peftbench()
{
    local -a found whole open
    found=(${=$(COMP_LINE="${words[1,CURRENT]}" COMP_POINT= peftbench -sc query=zsh 2> /dev/null)})
    whole=(${found:#*[=\\./]})
    open=(${found:|whole})
    (( ${#whole} )) && compadd -Q -- $whole
    (( ${#open} )) && compadd -Q -S '' -- $open
    (( ${#found} )) || _files
}
compdef _peftbench peftbench"""
_ZSH_UNINSTALL = "compdef -d peftbench 2> /dev/null\nunfunction _peftbench 2> /dev/null"
_BASH_UNINSTALL = "complete -r peftbench 2> /dev/null\nunset -f peftbench_completion"


def main(argv: list[str]) -> int:
    """Print the script for `install=SHELL` or `uninstall=SHELL`, or the candidates for `query=SHELL`.

    A query is about the line in COMP_LINE, up to the cursor where COMP_POINT tells it. Returns the exit code;
    raises UserError for anything but these three.
    """
    action, _, shell = " ".join(argv).partition("=")
    if action not in ("install", "uninstall", "query") or shell not in _SHELLS:
        raise UserError(f"-sc takes install=SHELL or uninstall=SHELL with SHELL one of {', '.join(_SHELLS)}")
    if action == "query":
        print(("\n" if shell == "fish" else " ").join(candidates(_line())))
        return 0
    if shell == "zsh":
        print(_ZSH.strip() if action == "install" else _ZSH_UNINSTALL)
        return 0
    print(_hydra(f"{action}={shell}").rstrip())
    if shell == "bash":
        print(_BASH if action == "install" else _BASH_UNINSTALL)
    return 0


def candidates(line: str) -> list[str]:
    """Return the words that can stand at the end of a command line, sorted."""
    words = line.split()
    word = "" if not words or line[-1].isspace() else words.pop()
    words = words[1:]  # without `peftbench`
    if not line.split() or line.split() == [word]:
        return []
    if not words:
        return _matching(word, COMMANDS, ["--help", "--version"])
    command, *rest = words
    if command not in COMMANDS:
        return []
    parser = _parser(command)
    if rest and (option := _takes_value(parser, rest[-1])):
        return _matching(word, option.choices or [])
    if command == "import":
        if all(other.startswith("-") for other in rest):
            return _matching(word, [], parser._option_string_actions)  # a folder, which the shell completes
        rest = [other for other in rest if "=" in other]
    if command in _WITH_OVERRIDES and not word.startswith("-"):
        if command in ("sweep", "plan") and word.startswith("table="):
            return [f"table={name}" for name in _matching(word.removeprefix("table="), _tables())]
        if command == "table" and "=" not in word and not rest:
            return _matching(word, _tables())
        return _overrides(rest, word, _WITH_OVERRIDES[command])
    return _matching(word, _positionals(command, parser, rest, word), parser._option_string_actions)


def _line() -> str:
    line = os.environ.get("COMP_LINE", "")
    point = os.environ.get("COMP_POINT", "")
    return line[: int(point)] if point.isdecimal() else line


def _matching(word: str, names: Iterable[str], options: Iterable[str] = ()) -> list[str]:
    """Return the names that begin so; options only where a dash asks for them."""
    return sorted(name for name in (options if word.startswith("-") else names) if name.startswith(word))


# ---- overrides -------------------------------------------------------------------------------------------


def _overrides(rest: list[str], word: str, config: str) -> list[str]:
    """Let Hydra complete an override of the config named; in `a,b` (several values, with -m) the last."""
    flags = {"-m", "--multirun"}
    known = [other for other in rest if not other.startswith("-") or other in flags]
    key, equals, value = word.partition("=")
    done, comma, last = value.rpartition(",")
    asked = f"{key}{equals}{last}"
    os.environ["COMP_LINE"] = " ".join(["peftbench", *known, asked])
    found = _hydra("query=bash", config).split()
    return [f"{key}={done},{name.removeprefix(f'{key}=')}" for name in found] if comma else found


def _tables() -> list[str]:
    """Return the names of the tables; Hydra's completion does not look into folders of a group."""
    from peftbench.config.groups import read_group

    return [table["name"] for table in read_group("table")]


def _hydra(request: str, config: str = "train") -> str:
    """Return what Hydra's own completion prints; nothing where it cannot make sense of the line."""
    import hydra

    from peftbench.config.folder import CONFIG_PATH
    from peftbench.config.hydra_session import VERSION_BASE

    sys.argv = ["peftbench", "-sc", request]
    complete = hydra.main(version_base=VERSION_BASE, config_path=CONFIG_PATH, config_name=config)(_nothing)
    answer = io.StringIO()
    try:
        with redirect_stdout(answer), redirect_stderr(io.StringIO()):
            complete()
    except (Exception, SystemExit):  # a line half written has many ways to be wrong
        return ""
    return answer.getvalue()


def _nothing(config: object) -> None:
    """Stand in for the function that Hydra would run."""


# ---- the other commands ----------------------------------------------------------------------------------


def _parser(command: str) -> argparse.ArgumentParser:
    if command == "train":
        from hydra._internal.utils import get_args_parser

        parser: argparse.ArgumentParser = get_args_parser()
        return parser
    return import_module(f"peftbench.commands.{command}").build_parser()


def _takes_value(parser: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    option = parser._option_string_actions.get(word)
    return option if option is not None and option.nargs is None else None


def _positionals(command: str, parser: argparse.ArgumentParser, rest: list[str], word: str) -> list[str]:
    if command == "list":
        from peftbench.commands.list import GROUPS

        return [] if any(other in GROUPS for other in rest) else list(GROUPS)
    given = [
        other
        for previous, other in zip(["", *rest], rest, strict=False)
        if not other.startswith("-") and not _takes_value(parser, previous)
    ]
    return _runs(command, rest, word) if command in _WITH_RUN and not given else []


def _runs(command: str, rest: list[str], word: str) -> list[str]:
    """Return the runs that the command can take, by id; with the experiment where that is asked for."""
    from peftbench.runs.find import find_runs

    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"))
    parser.add_argument("--experiment", default="")
    where, _ = parser.parse_known_args(rest)
    folder = where.output_dir / where.experiment
    runs = [run for run in find_runs(folder) if command == "runs" or run.status in ("finished", "imported")]
    paths = [run.record.folder.relative_to(folder) for run in runs]
    times = Counter(path.name for path in paths)
    return [path.as_posix() if "/" in word or times[path.name] > 1 else path.name for path in paths]
