"""`peftbench serve`: finished runs of one backbone behind HTTP."""

import argparse
import contextlib
import socket

from peftbench.arguments import Parser
from peftbench.commands.run_options import (
    add_device_argument,
    add_precision_argument,
    add_records_arguments,
    find_task_runs,
    positive,
    records_dir,
    working_on_stderr,
)
from peftbench.errors import UserError
from peftbench.serving.task_names import shortened


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench serve",
        description="Answer texts over HTTP with finished runs on one backbone. POST /predict takes"
        ' {"rows": [{"task": "mrpc", "text": ["…", "…"]}, …]}; GET /health and /metrics report its state. Requests that'
        " arrive together share a forward pass. SIGTERM and Ctrl-C stop it once pending requests are answered.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="TASK=RUN",
        help="a finished run and a name for its task; RUN alone takes the name of the task it was trained on",
    )
    add_records_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="0 picks any free port (default: 8000)")
    add_device_argument(parser)
    add_precision_argument(parser)
    parser.add_argument(
        "--batch-size", type=positive, default=64, metavar="N", help="rows per forward pass (default: 64)"
    )
    parser.add_argument(
        "--memory", type=positive, default=1024, metavar="MIB", help="memory for the tasks' tensors (default: 1024)"
    )
    parser.add_argument(
        "--max-rows", type=positive, default=256, metavar="N", help="rows per request, more get a 413 (default: 256)"
    )
    parser.add_argument(
        "--max-characters",
        type=positive,
        default=1_000_000,
        metavar="N",
        help="characters per request, more get a 413 (default: 1000000)",
    )
    parser.add_argument(
        "--max-queue", type=positive, default=4096, metavar="N", help="rows waiting, more get a 503 (default: 4096)"
    )
    return parser


def main(argv: list[str]) -> int:
    """Serve until a signal comes; returns the exit code.

    Raises UserError where a run cannot be had or shares no backbone with the others, the address is taken, and where
    the extra is not installed.
    """
    arguments = build_parser().parse_args(argv)
    try:
        from peftbench.serving.server import Limits, make_server
    except ModuleNotFoundError as error:
        raise UserError(f"serve needs {error.name}: pip install 'peftbench[serve]'") from None
    from peftbench.serving.multitask import MultiTask
    from peftbench.terminal import error_console
    from peftbench.training.devices import choose_device

    choose_device(arguments.device)
    records = find_task_runs(arguments.runs, records_dir(arguments))
    listening = _listen(arguments.host, arguments.port)
    with listening:
        with working_on_stderr("loading the model"):
            tasks = MultiTask(
                records,
                device=arguments.device,
                precision=arguments.precision,
                batch_size=arguments.batch_size,
                memory_mib=arguments.memory,
            )
            tasks.ways()  # what a method cannot do shows now
        limits = Limits(arguments.max_rows, arguments.max_characters, arguments.max_queue)
        server = make_server(tasks, limits)
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        error_console.print(f"serving {', '.join(tasks.tasks)} on http://{shown}:{port}, Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):  # which the server raises again when it has ended
            server.run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; UserError where that is not possible."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError, UnicodeError, TypeError) as error:  # the last two of a name that is none
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on {shortened(host)}:{port}: {reason}; choose another --port or --host"
        ) from None
