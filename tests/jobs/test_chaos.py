from dataclasses import replace
from pathlib import Path

import pytest

from hvlm.errors import UserError
from infra.config_io import load_config
from jobs import chaos
from jobs.chaos import ChaosConfig, job
from pipelines.chaos.run import ChaosReport


@pytest.mark.parametrize(("differences", "code"), [([], 0), (["round-001: shards: 1 entries, 2 …"], 1)])
def test_the_exit_code_is_the_truth(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    differences: list[str],
    code: int,
) -> None:
    seen = {}

    def fake(command, source_uri, root, plan, nodes):  # type: ignore[no-untyped-def]
        assert nodes is None and plan.change_source
        seen["command"] = command("/s", f"{source_uri}/copy")
        report = ChaosReport(rounds=1, changes=3, differences=differences)
        report.kills["driver"] = plan.num_kills
        return report

    monkeypatch.setattr(chaos, "run_chaos", fake)
    config = ChaosConfig(
        extract_config="e.yaml", source_uri=str(tmp_path), output_path=str(tmp_path / "new"), overrides=("a=1",)
    )
    assert job(config) == code
    start = ["-m", "jobs.extract", "--config", "e.yaml"]
    assert seen["command"][1:] == [*start, f"source.uri={tmp_path}/copy", "store_uri=/s", "a=1"]
    printed = capsys.readouterr().out
    assert "50 × driver" in printed and "3 of them over a source that had changed" in printed
    assert ("byte for byte" in printed) == (code == 0)


def test_a_job_that_hangs_fails_the_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "run_chaos", lambda *arguments: ChaosReport(rounds=1, hung=1))
    assert job(ChaosConfig(extract_config="e.yaml", source_uri=str(tmp_path), output_path=str(tmp_path / "new"))) == 1


def test_an_old_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="output_path"):
        job(ChaosConfig(extract_config="e.yaml", source_uri="/v", output_path=str(tmp_path)))


def test_only_a_folder_can_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ChaosConfig(extract_config="e.yaml", source_uri="s3://b/v", output_path=str(tmp_path / "new"))
    with pytest.raises(UserError, match="change_source=false"):
        job(config)
    monkeypatch.setattr(chaos, "run_chaos", lambda *arguments: ChaosReport(rounds=1))
    assert job(replace(config, change_source=False)) == 0


def test_the_config_loads() -> None:
    assert load_config(ChaosConfig, "jobs/configs/chaos.yaml", []).num_kills == 50
