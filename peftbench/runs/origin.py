"""What a figure may depend on besides the config: the code, versions, commit and device."""

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peftbench import __version__
from peftbench.runs.parsed_code import parse, remember
from peftbench.runs.result import Environment, Result

PACKAGE = Path(__file__).parents[1]
# the packages whose code decides what a run learns; the others carry settings, files and figures
_DECIDING = ("backbones", "methods", "tasks", "training")
# these import every method, layout and task there is, of which a run uses one
_REGISTRIES = ("methods", "backbones.layouts", "tasks")


def environment(device: Any, precision: str) -> Environment:
    """Return versions, commit, device, threads and precision of a run on a torch device."""
    import torch
    import transformers

    return Environment(
        versions={
            "peftbench": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        git_commit=git_commit(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        device_type=device.type,
        threads=torch.get_num_threads(),
        precision=precision,
    )


def code_digest(modules: Iterable[str]) -> str:
    """Return 8 hexadecimal digits that change with the code that decides what a run of these modules learns.

    Counted are the modules and all they import of peftbench's backbones, methods, tasks and training, without
    comments, docstrings and layout. A record with another digest is stale: trained again, the same config may score
    otherwise. A file is read once in a process, since one edited later changes nothing in it.

    Args:
        modules: dotted names, of the method, task and layout that ran among them.
    """
    return _closure_digest(tuple(sorted(set(modules))), PACKAGE)


def is_current(result: Result) -> bool:
    """Tell whether the code that made a run would make the same today; a record that does not say is stale."""
    origin = result.origin
    return origin is not None and bool(origin.modules) and code_digest(origin.modules) == origin.code


@cache
def _closure_digest(modules: tuple[str, ...], package: Path) -> str:
    found: dict[str, str] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found[name], imported = _read_module(name, package)
        if not _is_registry(name):
            todo += imported
    remember()
    text = "".join(f"{name} {digest}\n" for name, digest in sorted(found.items()) if not _is_registry(name))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@cache
def _read_module(name: str, package: Path) -> tuple[str, list[str]]:
    """Return the digest of a module's code, empty where it has no file, and the deciding modules that it imports."""
    path = _file_of(name, package)
    try:
        digest, imported = parse(path.read_bytes()) if path else ("", [])
    except (OSError, SyntaxError):
        return "", []
    deciding = tuple(f"peftbench.{part}." for part in _DECIDING)
    return digest, [name for name in imported if name.startswith(deciding) and _file_of(name, package)]


def _is_registry(module: str) -> bool:
    return module.removeprefix("peftbench.") in _REGISTRIES


def _file_of(module: str, package: Path) -> Path | None:
    """Return the source file of a module, None where there is none (any more)."""
    first, *inner = module.split(".")
    if first == "peftbench":
        path = package.joinpath(*inner)
        return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
    try:
        spec = find_spec(first)  # of the package alone: to find a module inside, Python would import its parents
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder).joinpath(*inner)
        found = (path / "__init__.py", path.with_suffix(".py")) if inner else (path / "__init__.py",)
        if file := next((file for file in found if file.is_file()), None):
            return file
    return Path(spec.origin) if not inner and spec and spec.origin and Path(spec.origin).is_file() else None


def processor() -> str:
    """Return the name of the machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or a processor that gives no name
        return platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Return the commit of the checkout peftbench runs from, `+` behind it where files differ; else None."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        ran = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
        return ran.stdout.strip()

    try:
        # an installed copy inside somebody's checkout is not that checkout's code
        if not git("ls-files", "--", Path(__file__).name):
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
