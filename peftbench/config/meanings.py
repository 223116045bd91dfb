"""What each setting means, read from where it is said once: the comments in the config files, else the docstrings."""

import ast
import re
from pathlib import Path

from peftbench.config.folder import CONFIG_PATH

_KEY = re.compile(r"( *)([\w.-]+):(.*)")
_ATTRIBUTE = re.compile(r" {8}(\w+): (.*)")


def read_meanings(group: str, option: str) -> dict[str, str]:
    """Return the meaning of the keys of a config group's option (`""` and `train`: the config's own), by dotted key.

    A key's meaning is the comment above it, or behind its value; a method's settings have theirs also in the docstring
    of its config class. Keys of which nothing is said are left out.
    """
    path = Path(CONFIG_PATH, group, f"{option}.yaml")
    found = _attributes(Path(__file__).parents[1] / "methods" / f"{option}.py") if group == "method" else {}
    return found | (_comments(path.read_text(encoding="utf-8")) if path.is_file() else {})


def _comments(text: str) -> dict[str, str]:
    meanings: dict[str, str] = {}
    above: list[str] = []
    parents: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines()):
        if line.strip().startswith("#"):
            if number:  # the first line is about the option
                above.append(line.strip().removeprefix("#").strip())
            continue
        if key := _KEY.fullmatch(line):
            indent = len(key[1])
            parents = [*(parent for parent in parents if parent[0] < indent), (indent, key[2])]
            behind = re.search(r"\s#\s+(.*)$", key[3])
            if comments := [*above, *([behind[1]] if behind else [])]:
                meanings[".".join(name for _, name in parents)] = " ".join(comments)
        above = []
    return meanings


def _attributes(path: Path) -> dict[str, str]:
    """Return what the docstring of the config class in a method's file says of each attribute, without importing it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError:  # a method from elsewhere
        return {}
    docs = [ast.get_docstring(node, clean=False) for node in tree.body if isinstance(node, ast.ClassDef)]
    meanings: dict[str, str] = {}
    name = None
    for line in "\n".join(doc for doc in docs if doc and "Attributes:" in doc).splitlines():
        if attribute := _ATTRIBUTE.fullmatch(line):
            name = attribute[1]
            meanings[name] = attribute[2]
        elif name and line.startswith(" " * 12):
            meanings[name] += f" {line.strip()}"
        else:
            name = None
    return {name: text.rstrip(".") for name, text in meanings.items()}
