import shlex
import sys

from infra.config_io import load_config
from jobs import science
from pipelines.science.config import ScienceConfig
from pipelines.science.gates import Gate
from pipelines.science.run import ScienceReport


def _report(*holds):
    gates = [Gate(name=f"gate {i}", required="0.5", measured="0.6", holds=each) for i, each in enumerate(holds)]
    return ScienceReport(
        gates=gates,
        runs=[],
        chance={"order": 0.5},
        page_path="/out/science.html",
        run_id="abc",
        tracking_uri="sqlite:////m.db",
        duration_s=90.0,
    )


def test_the_exit_code_says_whether_every_gate_holds(monkeypatch, capsys):
    config = load_config(ScienceConfig, "jobs/configs/science.yaml")
    commands = []
    monkeypatch.setattr(sys, "argv", ["jobs/science.py", "--config", "a b.yaml"])
    for holds, code in (((True, True), 0), ((True, False), 1)):
        monkeypatch.setattr(
            science, "run_science", lambda config, command, h=holds: commands.append(command) or _report(*h)
        )
        assert science.job(config) == code
        out = capsys.readouterr().out
        assert f"{sum(holds)} of 2 hold" in out and "/out/science.html" in out and "1.5 min" in out
    assert shlex.split(commands[0]) == ["python", "-m", "jobs.science", "--config", "a b.yaml"]
