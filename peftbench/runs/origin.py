"""What a figure may depend on besides the config: code, versions, device."""

import hashlib
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peftbench import __version__
from peftbench.errors import UserError

PACKAGE = Path(__file__).parents[1]
# the rooms whose code decides what a run learns; of methods/, only the run's own file and what that imports
_DECIDING = ("backbones", "tasks", "training")


def environment(device: Any, dtype: Any, method: str) -> dict[str, Any]:
    """Return versions, commit, digest of the code, device, threads and dtype of a run on a torch device."""
    import torch
    import transformers

    return {
        "versions": {
            "peftbench": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "git_commit": git_commit(),
        "code": code_digest(method),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
    }


@cache
def code_digest(method: str) -> str:
    """Return 8 hexadecimal digits that change with the code that decides what a run of `method` learns.

    A record with another digest is stale: trained again, the same config may score otherwise. It is taken once in a
    process, since a file edited later changes nothing in it.
    """
    files = [path for room in _DECIDING for path in (PACKAGE / room).rglob("*.py")] + [PACKAGE / "runs/prepare.py"]
    names = ["__init__", "base", method]
    for name in names:  # grows while it is walked: a method may build on others
        path = _method_file(name)
        files.append(path)
        imported = re.findall(r"peftbench\.methods\.(\w+)", path.read_text(encoding="utf-8"))
        names += [other for other in imported if other not in names]
    digest = hashlib.sha256()
    for path in sorted(files):
        name = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name
        digest.update(f"{name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def _method_file(name: str) -> Path:
    """Return a method's file: the package's own, or that of the entry point of its name; neither is imported."""
    path = PACKAGE / "methods" / f"{name}.py"
    if path.exists():
        return path
    for entry in entry_points(group="peftbench.methods", name=name):
        found = find_spec(entry.module)
        if found is not None and found.origin is not None:
            return Path(found.origin)
    raise UserError(f"no method {name!r} here: install the package that brings it")


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
