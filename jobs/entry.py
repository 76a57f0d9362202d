"""The frame of every job: parse, load the config, call, print the report, exit code.

Exit codes: 0 done, 1 failed, 2 the user's input is wrong (the message says how to mend it), 130 interrupted, 143
terminated.
"""

import argparse
import gc
import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from hvlm.errors import JobError, UserError
from infra.config_io import ConfigChoice, load_config
from infra.logs import configure_logging

C = TypeVar("C")
logger = logging.getLogger(__name__)
_INTERRUPTED, _TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def run_job(
    name: str, description: str | None, config_type: type[C] | ConfigChoice[C], job: Callable[[C], int]
) -> None:
    """Run `job` on the config that the command line names, and exit with its code."""
    parser = argparse.ArgumentParser(
        prog=f"python -m jobs.{name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="the run's YAML; jobs/configs/ has examples")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="replaces a value of the YAML, e.g. source.uri=/videos"
    )
    arguments = parser.parse_args()
    configure_logging()
    gc.freeze()  # PyTorch and Ray stay: looking through them at each collection costs seconds over a large catalog
    terminated = []

    def stop(number: int, frame: FrameType | None) -> None:
        terminated.append(number)
        raise KeyboardInterrupt  # `ray job stop` ends a job as Ctrl-C does: tidily

    signal.signal(signal.SIGTERM, stop)
    code = guarded(lambda: job(load_config(config_type, arguments.config, arguments.overrides)))
    sys.exit(_TERMINATED if terminated and code == _INTERRUPTED else code)


def guarded(job: Callable[[], int]) -> int:
    """Return the job's exit code; an error becomes one message on stderr and a code."""
    try:
        return job()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except JobError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        logger.exception("the job failed")
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
