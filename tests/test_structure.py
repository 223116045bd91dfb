"""Who may know whom: no room of the package imports what it must not, and none imports in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "peftbench"
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path, top_level_only: bool) -> Iterator[str]:
    """Yield the dotted names that a module imports, those of `if TYPE_CHECKING` left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(_without_type_checking(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _without_type_checking(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _without_type_checking(child)


def rooms(folder: str) -> list[tuple[str, Path]]:
    return [(name, path) for name, path in MODULES.items() if name.startswith(f"peftbench.{folder}")]


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("methods", ["hydra", "omegaconf", *(f"peftbench.{x}" for x in ("training", "tasks", "runs", "config"))]),
        ("backbones", ["hydra", *(f"peftbench.{x}" for x in ("methods", "training", "tasks", "runs", "config"))]),
        ("training", ["hydra", *(f"peftbench.{x}" for x in ("methods", "runs", "commands"))]),
        (
            "tables",
            ["hydra", "torch", "transformers", *(f"peftbench.{x}" for x in ("training", "methods", "commands"))],
        ),
        (
            "advice",
            ["hydra", "torch", "transformers", *(f"peftbench.{x}" for x in ("training", "methods", "commands"))],
        ),
        (
            "audit",
            [
                "hydra",
                "torch",
                "transformers",
                *(f"peftbench.{x}" for x in ("training", "methods", "runs", "commands")),
            ],
        ),
        ("runs", ["hydra", "peftbench.commands", "peftbench.sweeps", "peftbench.tables"]),
        ("sweeps", ["peftbench.commands"]),
        ("search", ["peftbench.commands"]),
        ("recommend", ["hydra", "torch", "peftbench.commands"]),
        ("serving", ["hydra", "peftbench.commands", "peftbench.tables"]),
        ("measuring", ["hydra", "peftbench.commands", "peftbench.runs", "peftbench.tables"]),
    ],
)
def test_a_room_imports_nothing_it_must_not_know(folder, forbidden):
    assert rooms(folder)
    wrong = [
        f"{name} imports {found}"
        for name, path in rooms(folder)
        for found in imported(path, top_level_only=False)
        if any(found == name_ or found.startswith(f"{name_}.") for name_ in forbidden)
    ]
    assert not wrong


def test_a_module_has_one_job():
    long = {name: lines for name, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > 300}
    assert not long
