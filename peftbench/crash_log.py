"""What nobody foresaw: its traceback goes into a file, and the terminal gets one line."""

import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from peftbench.errors import PeftbenchError


def log_crash(error: Exception, argv: Sequence[str]) -> PeftbenchError:
    """Write the traceback of `error` into the output folder of a command line, or the temporary folder.

    Returns the error to show: the reason in a line, and the path of the log.
    """
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
    text = f"peftbench {' '.join(argv)}\n\n{''.join(traceback.format_exception(error))}"
    name = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06}.log"
    for folder in (_output_folder(argv), Path(tempfile.gettempdir())):
        path = folder / name
        try:
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except (OSError, ValueError):  # no such folder, or one that cannot be written
            continue
        return PeftbenchError(f"this should not have happened: {reason}; log {path}")
    return PeftbenchError(f"this should not have happened, and no log could be written: {reason}")


def _output_folder(argv: Sequence[str]) -> Path:
    """Return the folder of records that a command line names, as a setting or as an option."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        key, equals, value = word.lstrip("+-").partition("=")
        if key in ("output_dir", "output-dir") and (value if equals else following):
            return Path(value if equals else following)
    return Path("outputs")
