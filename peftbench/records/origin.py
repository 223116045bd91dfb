"""Where the running code comes from."""

import subprocess
from pathlib import Path


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
