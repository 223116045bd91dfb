"""From a path to evidence: which of the known formats it is."""

from pathlib import Path
from typing import Any

from peftbench.audit.csv_scores import read_csv
from peftbench.audit.evidence import Evidence, checked
from peftbench.audit.harness_samples import find_samples, read_harness
from peftbench.audit.peft_results import is_result, read_peft
from peftbench.errors import UserError
from peftbench.files import is_there, parse_json

_KNOWN = (
    "a CSV file, a folder of lm-evaluation-harness with samples_*.jsonl, or a folder of Hugging Face peft's"
    " method-comparison results (*.json)"
)


def read_evidence(
    path: Path, *, task: str | None = None, metric: str | None = None, examples: int | None = None
) -> Evidence:
    """Return what stands there, checked.

    Args:
        path: a CSV file, or a folder of one of the known kinds.
        task, metric: which of several, of the harness and peft. examples: of peft's results.

    Raises UserError for an unknown format, an option that the format has no use for, and for what cannot be compared.
    """
    if is_there(path, Path.is_file):
        if path.suffix.lower() not in (".csv", ".tsv"):
            raise UserError(f"{path} has an unknown format: it takes {_KNOWN}")
        _check_unused(path, "a CSV file", task=task, metric=metric, examples=examples)
        return checked(read_csv(path))
    if not is_there(path, Path.is_dir):
        raise UserError(f"{'neither a file nor a folder' if is_there(path) else 'no such file or folder'}: {path}")
    if samples := find_samples(path):
        _check_unused(path, "a folder of samples", examples=examples)
        return checked(read_harness(path, samples, task, metric))
    files = sorted(path.glob("*.json"))
    if contents := {file: content for file in files if is_result(content := _json(file))}:
        _check_unused(path, "a folder of peft's results", task=task)
        return checked(read_peft(path, contents, metric, examples))
    if not any(path.iterdir()):
        raise UserError(f"{path} is empty: it takes {_KNOWN}")
    below = next((file.parent for file in sorted(path.glob("*/*.json")) if is_result(_json(file))), None)
    hint = f" Do you mean {below}?" if below else ""
    raise UserError(f"{path} has an unknown format: it takes {_KNOWN}.{hint}")


def _json(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _check_unused(path: Path, kind: str, **options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise UserError(f"{path} is {kind}, which --{name} is not for: leave it out")
