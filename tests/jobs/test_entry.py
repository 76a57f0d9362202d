"""Exit codes and messages of every job."""

import logging
import os
import signal
import sys
from dataclasses import dataclass

import pytest

from hvlm.config import Config, require
from hvlm.errors import JobError, UserError
from jobs.entry import guarded, run_job


@dataclass(frozen=True, slots=True, kw_only=True)
class CountConfig(Config):
    upto: int = 3

    def __post_init__(self) -> None:
        require(self.upto > 0, what="upto", got=self.upto, expected="above 0", do="raise it")


@pytest.fixture(autouse=True)
def _logging_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def call(monkeypatch, job, *arguments):
    monkeypatch.setattr(sys, "argv", ["count", *arguments])
    with pytest.raises(SystemExit) as stop:
        run_job("count", "Counts.", CountConfig, job)
    return stop.value.code


@pytest.fixture(autouse=True)
def _signals_as_before():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "count.yaml"
    path.write_text("upto: 4\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("code", [0, 1])
def test_the_jobs_code_is_the_exit_code(monkeypatch, config_file, code):
    seen = []
    assert call(monkeypatch, lambda config: seen.append(config) or code, "--config", config_file, "upto=5") == code
    assert seen == [CountConfig(upto=5)]


@pytest.mark.parametrize("override", ["upto=0", "upto=many", "up_to=1", "upto"])
def test_wrong_input_is_code_2_and_one_line(monkeypatch, capsys, config_file, override):
    assert call(monkeypatch, lambda config: 0, "--config", config_file, override) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1


def test_a_missing_config_is_code_2(monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, lambda config: 0, "--config", str(tmp_path / "none.yaml")) == 2
    assert "expected an existing YAML file" in capsys.readouterr().err


def test_no_config_is_code_2_with_usage(monkeypatch, capsys):
    assert call(monkeypatch, lambda config: 0) == 2
    assert "usage: python -m jobs.count" in capsys.readouterr().err


def test_the_users_error_has_no_trace(capsys):
    def job():
        raise UserError(what="source.uri", got="/none", expected="a folder", do="check the path")

    assert guarded(job) == 2
    assert capsys.readouterr().err == "error: source.uri: got /none; expected a folder; check the path\n"


def test_our_error_has_a_trace_and_code_1(capsys, caplog):
    assert guarded(lambda: 1 // 0) == 1
    assert "error: ZeroDivisionError" in capsys.readouterr().err
    assert "Traceback" in caplog.text


def test_an_interrupt_says_how_to_go_on(capsys):
    def job():
        raise KeyboardInterrupt

    assert guarded(job) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_a_stated_failure_is_code_1_without_a_stack_trace(monkeypatch, capsys, config_file):
    def fail(config):
        raise JobError("7 of 10 videos failed")

    assert call(monkeypatch, fail, "--config", config_file) == 1
    assert capsys.readouterr().err == "error: 7 of 10 videos failed\n"


def test_a_terminated_job_ends_as_tidily_as_an_interrupted_one(monkeypatch, capsys, config_file):
    assert call(monkeypatch, lambda config: os.kill(os.getpid(), signal.SIGTERM) or 0, "--config", config_file) == 143
    assert "run the same command again to continue" in capsys.readouterr().err
