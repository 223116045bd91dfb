"""What identifies a process, across machines too, and whether such a process still runs."""

import os
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Return what tells this process from any other: host, machine, number, start."""
    return {
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": os.getpid(),
        "process_start": process_start(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine() -> str | None:
    """Name this boot of this machine and its process namespace, within which process numbers mean one thing.

    A host name is not enough: containers share names, and a machine may have been restarted.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname() if sys.platform == "darwin" else None


def process_lives(facts: Mapping[str, Any]) -> bool | None:
    """Tell whether a process still runs, by its `this_process()`; None where that cannot be told from here."""
    where, pid, start = facts.get("machine"), facts.get("pid"), facts.get("process_start")
    if where is None or where != machine() or not isinstance(pid, int):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, under another user
    found = process_start(pid)
    # Nothing found is a zombie, or a system that hides other users' processes.
    return None if found is None or start is None else found == start


def process_start(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot: with it, a reused number shows.

    A zombie, dead but not yet reaped, counts as started at -1.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return -1 if state in "ZX" else int(fields[18])
