"""Log lines of the jobs."""

import logging

import pytest

from infra.logs import configure_logging


@pytest.fixture(autouse=True)
def _as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    for package in ("hvlm", "pipelines", "infra", "jobs", "__main__"):
        logging.getLogger(package).setLevel(logging.NOTSET)


def test_our_notes_and_the_warnings_of_others_go_to_stderr(capsys):
    configure_logging()
    logging.getLogger("pipelines.x").info("ours %d", 1)
    logging.getLogger("other").info("chatter")
    logging.getLogger("other").warning("theirs")
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(" ", 1)[1] for line in err.splitlines()] == ["INFO pipelines.x: ours 1", "WARNING other: theirs"]


def test_twice_configured_says_it_once(capsys):
    configure_logging()
    configure_logging()
    logging.getLogger("jobs.x").warning("once")
    assert capsys.readouterr().err.count("once") == 1


def test_the_level_comes_from_the_environment(capsys, monkeypatch):
    monkeypatch.setenv("HVLM_LOG_LEVEL", "debug")
    configure_logging()
    logging.getLogger("hvlm.x").debug("detail")
    assert "DEBUG hvlm.x: detail" in capsys.readouterr().err
