"""Quote paths and column names for Hydra, whose grammar does not read unicode, `=`, parentheses and more unquoted.

And refuse what it would drop without a word: of a key that a {…} has twice it keeps the last.
"""

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from peftbench.errors import UserError
from peftbench.files import expanded, is_there

# keys whose value is a path, the name of a column or an experiment, or a template, which the user chooses
_FREE_TEXT = re.compile(
    r"\+{0,2}(task\.(splits\.\w+|dir|text|label|path)|model\.path|output_dir|experiment|method\.(adapters|template))"
)
# keys whose value may be a list of any texts
_LISTS = re.compile(r"\+{0,2}(task\.(text|labels)|method\.(words|class_names))")
_UNREADABLE = object()
_KEY = re.compile(r"[{,]\s*([^\s,:{}'\"]+)\s*:")


def quote_free_text(overrides: Sequence[str]) -> list[str]:
    """Return the overrides, those that Hydra could not read or would split quoted where their key takes any text.

    A value that Hydra reads stays as it is, so that `task.dir=a,b` is a sweep, unless there is a file `a,b`.
    Raises UserError where one {…} says a key twice.
    """
    return [_quoted(line) for line in overrides]


def _quoted(line: str) -> str:
    key, sign, value = line.partition("=")
    if value.startswith("{") and value.count("{") == 1:  # a key of another {…} inside is another key
        keys = _KEY.findall(value)
        if twice := next((name for name in keys if keys.count(name) > 1), None):
            raise UserError(f"{line}: it names {twice} twice")
    if _LISTS.fullmatch(key) and value.startswith("["):
        # names of classes, which true, 1.50 and 007 may be, are never read as something else
        of_classes = key.endswith("task.labels") and not {"'", '"'} & set(value)
        if of_classes or ('"' not in value and value.endswith("]") and _read(line) is _UNREADABLE):
            return f"{key}={re.sub(r'[^][,]+', lambda found: in_quotes(found[0].strip()), value)}"
        return line
    if not sign or not _FREE_TEXT.fullmatch(key) or not value or value[0] in "'\"":
        return line
    if value[0] in "[{":  # a list or names of runs, but a template may begin with a place in braces
        return f"{key}={in_quotes(value)}" if key.endswith("method.template") else line
    if _is_read_as_written(line, key, value) and not ("," in value and is_there(expanded(value))):
        return line
    return f"{key}={in_quotes(value)}"


def in_quotes(value: str) -> str:
    """Return any text as Hydra's grammar writes one value."""
    escaped = re.sub(r"(\\*)(\"|$)", lambda found: 2 * found[1] + ("\\" + found[2] if found[2] else ""), value)
    return f'"{escaped}"'


def _is_read_as_written(line: str, key: str, value: str) -> bool:
    """Tell whether Hydra reads the value, and not as a number that is written otherwise: 2024_11_28 as 20241128.

    A split may be a number, a share.
    """
    found = _read(line)
    if found is _UNREADABLE:
        return False
    return "splits" in key or not isinstance(found, bool | int | float) or str(found) == value


def _read(line: str) -> Any:
    """Return the value as Hydra reads it, `_UNREADABLE` where it does not."""
    try:
        return OverridesParser.create().parse_override(line).value()
    except HydraException:
        return _UNREADABLE
