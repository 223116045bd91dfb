"""The packages of the house know each other in one direction: no circle of imports between them."""

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "peftbench"
# entries: what they import, and who imports them for a constant, is no part of the order
ENTRIES = ("cli", "__main__", "__init__", "commands")


def imports_of(path: Path) -> set[str]:
    """The packages that a file imports outside its functions, types apart."""
    found: set[str] = set()

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.ImportFrom) and node.module == "peftbench":
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("peftbench."):
                found.add(node.module.split(".")[1])
            elif isinstance(node, ast.Import):
                found.update(a.name.split(".")[1] for a in node.names if a.name.startswith("peftbench."))
            elif isinstance(node, ast.Try | ast.With):
                visit(node.body)

    visit(ast.parse(path.read_text()).body)
    return found


def test_no_circle_between_packages() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if package not in ENTRIES:
            graph[package] |= imports_of(path) - {package, *ENTRIES}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"circle of imports: {' -> '.join(error.args[1])}")
    assert order.index("methods") < order.index("runs") < order.index("tables") < order.index("loggers")


def test_a_layout_is_named_as_its_module() -> None:
    """A run's record names the layout's module by the layout's name."""
    from peftbench.backbones.layouts import LAYOUTS

    for layout in LAYOUTS:
        assert (PACKAGE / "backbones" / "layouts" / f"{layout.name}.py").exists(), layout.name
