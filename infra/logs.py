"""Log format of all jobs: one line per event on stderr, level by HVLM_LOG_LEVEL (default INFO)."""

import logging
import os
import sys


def configure_logging() -> None:
    """Send this process's log records to stderr, once; third-party chatter from WARNING up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for package in ("hvlm", "pipelines", "infra", "jobs", "__main__"):
        logging.getLogger(package).setLevel(os.environ.get("HVLM_LOG_LEVEL", "INFO").upper())
