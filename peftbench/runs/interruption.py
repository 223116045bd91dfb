"""How a run is asked to stop from outside."""

import signal
from typing import Any


def interrupt_on_sigterm() -> None:
    """Let SIGTERM, a cluster's preemption, be recorded like Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt
