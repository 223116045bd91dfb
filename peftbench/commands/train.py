"""`peftbench train`: one run, or with -m one for each combination of values."""

import os
import sys
from typing import NoReturn

from omegaconf import DictConfig

from peftbench.arguments import unknown_option
from peftbench.errors import INTERRUPTED, PeftbenchError, UserError
from peftbench.sweeps.job import train_job

_exit_codes: list[int] = []
_unforeseen: list[Exception] = []
_command_pid: int | None = None


def main(argv: list[str]) -> int:
    """Compose the config with Hydra and train, once or (with -m) once for each combination.

    Returns 0, 1 where a run failed, 2 for a mistake in the config, 130 where it was interrupted.
    """
    import hydra

    from peftbench.commands.train_help import print_help
    from peftbench.config.folder import CONFIG_NAME, CONFIG_PATH
    from peftbench.config.hydra_session import VERSION_BASE
    from peftbench.config.mistakes import translate
    from peftbench.config.quoting import quote_free_text

    global _command_pid
    _exit_codes.clear()
    _unforeseen.clear()
    _command_pid = os.getpid()
    _check_options(argv)
    argv = quote_free_text(argv)
    if "--help" in argv or "-h" in argv:
        print_help([word for word in argv if not word.startswith("-")])
        return 0
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    # Hydra's parser takes its flags only before the overrides
    sys.argv = [sys.argv[0], *sorted(argv, key=lambda word: word not in ("-m", "--multirun"))]
    main = hydra.main(version_base=VERSION_BASE, config_path=CONFIG_PATH, config_name=CONFIG_NAME)
    compose_and_train = main(_hydras_job)
    try:
        compose_and_train()
        if _unforeseen:
            raise _unforeseen[0]
    except KeyboardInterrupt:
        return INTERRUPTED
    except PeftbenchError:
        raise
    except Exception as error:
        raise translate(error, argv) from error
    return 1 if 1 in _exit_codes else max(_exit_codes, default=0)


def _hydras_job(composed: DictConfig) -> None:
    """Train one run; in this process note its failure, so that a sweep goes on, in a launcher's raise it."""
    try:
        train_job(composed)
    except PeftbenchError as error:
        if os.getpid() != _command_pid:
            raise
        _exit_codes.append(error.exit_code)
    except Exception as error:
        if os.getpid() != _command_pid:
            raise
        _unforeseen.append(error)  # raised behind Hydra, which would print a line of its own and end a sweep


def _check_options(argv: list[str]) -> None:
    """Raise UserError, with a hint, for options that Hydra does not have or cannot use."""
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; `peftbench train --hydra-help` shows Hydra's options")

    parser = get_args_parser()
    for word in argv:
        if word.startswith("-") and word.partition("=")[0] not in parser._option_string_actions:
            raise unknown_option(word, parser._option_string_actions, True, "peftbench train")
    parser.allow_abbrev = False
    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_intermixed_args(argv)
