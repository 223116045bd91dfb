"""What may import what: no package imports what it must not, and no modules import each other in a circle."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "peftbench"
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path, within_functions: bool = True) -> Iterator[str]:
    """Yield the dotted names that a module imports, those of `if TYPE_CHECKING` left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _without_type_checking(tree) if within_functions else tree.body:
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


def modules_of(folder: str) -> list[tuple[str, Path]]:
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
def test_a_package_imports_nothing_it_must_not_know(folder, forbidden):
    assert modules_of(folder)
    wrong = [
        f"{name} imports {found}"
        for name, path in modules_of(folder)
        for found in imported(path)
        if any(found == name_ or found.startswith(f"{name_}.") for name_ in forbidden)
    ]
    assert not wrong


def test_a_module_has_one_job():
    long = {name: lines for name, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > 300}
    assert not long


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: {_module(found) for found in imported(path, False)} - {None, name} for name, path in MODULES.items()}
    assert sum(map(len, graph.values())) > 500
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them


def _module(dotted: str) -> str | None:
    """Return the module of the package that an imported name is, or is in."""
    return next((name for name in (dotted, dotted.rpartition(".")[0]) if name in MODULES), None)
