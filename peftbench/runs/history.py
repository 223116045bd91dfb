"""The training curve, `history.jsonl`: one JSON object a line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from peftbench.errors import UserError
from peftbench.files import atomic_write, check_regular, parse_json, plain


def write_history(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the whole curve; `step` is the optimizer step a row belongs to."""
    with atomic_write(path) as file:
        file.writelines(json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return the rows, none where there is no file; a line cut short is left out."""
    try:
        check_regular(path)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    return [row for row in map(_json_object, lines) if row is not None]


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        row = parse_json(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
