"""What the commands' argument parsers share: whole option names only, and mistakes in one line with a hint."""

import argparse
import itertools
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from peftbench.errors import UserError, nearest

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)")
SETTINGS = "KEY=VALUE"  # the metavar of a command's settings


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviated options and raises UserError for a mistake."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does; settings written with dashes are told apart from missing ones."""
        takes_settings = any(action.metavar == SETTINGS for action in self._actions)
        for word in itertools.takewhile(lambda word: word != "--", args or ()):
            if takes_settings and word.startswith("--") and word.partition("=")[0] not in self._option_string_actions:
                raise unknown_option(word, self._option_string_actions, takes_settings, self.prog)
        return super().parse_known_args(args, namespace)

    def print_help(self, file: Any = None) -> None:
        """Print the help; unlike argparse, say so where that is not possible."""
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        """Raise UserError, with the option or setting that may have been meant."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            raise unknown_option(unknown.split()[0], self._option_string_actions, False, self.prog)
        raise UserError(f"{message}; `{self.prog} --help` shows how it is used")


def unknown_option(word: str, options: Iterable[str], takes_settings: bool, command: str) -> UserError:
    """Return the error for an argument that `command` does not have; settings are written without dashes."""
    if not word.startswith("-"):
        return UserError(f"too many arguments: {word!r}; `{command} --help` shows how it is used")
    name, equals, value = word.lstrip("-").partition("=")
    if takes_settings and (equals or _is_setting(name)):
        return UserError(f"{word}: settings have no dashes: write {name}={value or '…'}")
    options = [option for option in options if option.startswith("--")]
    return UserError(f"{command} has no option {word.partition('=')[0]}. {nearest(word.partition('=')[0], options)}")


def _is_setting(name: str) -> bool:
    from peftbench.config.schema import GROUPS, RunConfig  # which no command needs for its options

    return name.partition(".")[0] in {*GROUPS, *RunConfig.__dataclass_fields__, "table", "seeds"}


def duration(option: str, text: str) -> float:
    """Return in seconds the time that an option is given, such as `30m` or `4h`; UserError where it is malformed."""
    found = _DURATION.fullmatch(str(text).strip())
    if found is None or float(found[1]) == 0:
        between = "" if option.endswith("=") else " "
        raise UserError(f"{option}{between}{text} must be a time with its unit, such as 30m or 4h")
    return float(found[1]) * _UNITS[found[2]]


def whole_number(option: str, text: str | None) -> int | None:
    """Return the number that an option is given, None where it is not; raises UserError for anything but 1, 2 …"""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < 1:
        raise UserError(f"{option} {text} must be a whole number, 1 or more")
    return int(text)
