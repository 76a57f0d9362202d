from pathlib import Path

import pytest

from jobs import sweep as module
from pipelines.sweep.run import SweepReport
from pipelines.sweep.table import TableRow
from tests.pipelines.sweep.world import sweep


def make_report(failures: dict[str, str], not_started: list[str]) -> SweepReport:
    row = TableRow(
        metric="val/top1",
        method="full",
        n=2,
        mean=0.5,
        std=0.1,
        raw=0.25,
        better="higher",
        seeds=(0, 1),
        values=(0.4, 0.6),
    )
    return SweepReport(
        rows=[row],
        num_trials=4,
        num_known=1,
        failures=failures,
        not_started=not_started,
        output_uri="/out",
        run_id="abc",
        tracking_uri="sqlite:////data/mlflow.db",
    )


@pytest.mark.parametrize(
    ("failures", "not_started", "code"), [({}, [], 0), ({"flat/seed-0": "no disk"}, [], 1), ({}, ["flat/seed-1"], 1)]
)
def test_the_report_and_the_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failures: dict[str, str],
    not_started: list[str],
    code: int,
) -> None:
    monkeypatch.setattr(module, "run_sweep", lambda config: make_report(failures, not_started))
    assert module.job(sweep(tmp_path)) == code
    said = capsys.readouterr().out
    for part in (
        "full    0.500 ± 0.100   n 2  raw 0.250",
        f"trials       {4 - code} of 4 finished, 1 of them before",
        "table        /out/sweep.csv",
        "MLflow run   abc",
        "mlflow ui --backend-store-uri sqlite:////data/mlflow.db",
    ):
        assert part in said
    assert ("failed       flat/seed-0: no disk" in said) == bool(failures)
    assert ("not started  flat/seed-1" in said) == bool(not_started)
