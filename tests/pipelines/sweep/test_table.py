import csv
import io
import math
from pathlib import Path

import pytest

from pipelines.sweep.table import TableRow, csv_table, make_table, text_table
from pipelines.sweep.trials import make_trials
from tests.pipelines.sweep.world import result, sweep


@pytest.fixture
def rows(tmp_path: Path) -> list[TableRow]:
    """full has 0.2, 0.4, 0.9; flat has 0.5 alone: one value is missing, one trial failed."""
    trials = {
        trial.name: trial for trial in make_trials(sweep(tmp_path, methods={"full": {}, "flat": {}}, seeds=[0, 1, 2]))
    }
    results = [
        (trials["full/seed-2"], result(0.9, raw=0.3)),
        (trials["flat/seed-0"], result(0.5, raw=None)),
        (trials["full/seed-0"], result(0.2, raw=0.3)),
        (trials["full/seed-1"], result(0.4, raw=0.6)),
        (trials["flat/seed-1"], result(None)),
    ]
    return make_table(results)


def test_mean_and_standard_deviation_by_hand(rows: list[TableRow]) -> None:
    full, flat = rows
    # mean (.2 + .4 + .9) / 3 = .5; squares .09 + .01 + .16 = .26, over n - 1 = 2: .13
    assert (full.metric, full.method, full.n) == ("val/top1", "full", 3)
    assert full.mean == pytest.approx(0.5) and full.std == pytest.approx(math.sqrt(0.13))
    assert full.raw == pytest.approx(0.4)
    assert full.seeds == (0, 1, 2) and full.values == (0.2, 0.4, 0.9)
    assert (flat.n, flat.mean, flat.std, flat.raw) == (1, 0.5, None, None)


def test_the_text_says_n_and_no_deviation_of_one(rows: list[TableRow]) -> None:
    assert text_table(rows).splitlines() == [
        "val/top1  (higher is better)",
        "  full    0.500 ± 0.361   n 3  raw 0.400",
        "  flat    0.500 ± -       n 1",
    ]
    assert text_table([]) == "no trial gave a metric"


def test_the_csv_reads_back(rows: list[TableRow]) -> None:
    read = list(csv.DictReader(io.StringIO(csv_table(rows).decode())))
    assert [(row["method"], row["n"], float(row["mean"]), row["better"]) for row in read] == [
        ("full", "3", 0.5, "higher"),
        ("flat", "1", 0.5, "higher"),
    ]
    assert float(read[0]["std"]) == pytest.approx(0.36056, abs=1e-5) and read[1]["std"] == read[1]["raw"] == ""
