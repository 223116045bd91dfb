"""What the source of a module comes to, without comments, docstrings and layout.

Parsing takes most of what a short run costs, so what came out is remembered by the source's SHA-256, in this process
and in the cache folder.
"""

import ast
import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from peftbench.assets.cache import cache_folder
from peftbench.errors import UserError
from peftbench.files import atomic_write

_MOST = 1000  # modules remembered; the oldest are forgotten

# the digest of the code, and the names that it imports
Parsed = tuple[str, list[str]]
_known: dict[str, Parsed] = {}  # by the source's digest
_unsaved: dict[str, Parsed] = {}


def parse(source: bytes) -> Parsed:
    """Return the digest of the code and the dotted names that it imports, in functions too.

    `from a.b import c` gives a.b and a.b.c, for c may be a module. Raises SyntaxError.
    """
    key = hashlib.sha256(source).hexdigest()
    if not _known:
        _known.update(_remembered())
    if key not in _known:
        tree = ast.parse(source)
        _known[key] = _unsaved[key] = _digest(tree), list(_imported(tree))
    return _known[key]


def remember() -> None:
    """Leave what this process has parsed to later ones."""
    if not _unsaved:
        return
    entries = list({**_remembered(), **_unsaved}.items())[-_MOST:]
    _unsaved.clear()
    with contextlib.suppress(OSError, UserError):  # a cache that cannot be written costs time, nothing else
        cache_folder().mkdir(parents=True, exist_ok=True)
        with atomic_write(_path()) as file:
            json.dump(dict(entries), file)


def _path() -> Path:
    # another Python may have other syntax trees
    return cache_folder() / f"code-{sys.version_info.major}.{sys.version_info.minor}.json"


def _remembered() -> dict[str, Parsed]:
    """Read what earlier processes have left; a damaged file holds nothing."""
    try:
        entries = json.loads(_path().read_text("utf-8"))
        return {str(key): (str(digest), [str(name) for name in names]) for key, (digest, names) in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _digest(tree: ast.Module) -> str:
    """Return the SHA-256 of a syntax tree, whose docstrings are removed; comments and layout are not in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
