"""Files beside the report: what they hold per split, JSON without NaN."""

import io
from types import SimpleNamespace

import polars as pl
import pytest

from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.metric_table import MetricRow
from pipelines.evaluation.outputs import metrics_json, split_files, to_json
from pipelines.evaluation.results import Section, SplitResult

SAMPLES = pl.DataFrame({"key": ["a", "b"]})
ROWS = [MetricRow(name="val/x", ours=0.5, group="g")]
RESULT = SplitResult(split="val", samples=SAMPLES, sections={"g": Section("G", ROWS)}, facts={"f": 3})


def test_files_of_a_split():
    files = split_files(SplitResult(split="val", samples=SAMPLES, sections={}, predictions={"p.json": b"{}"}))
    assert files.keys() == {"samples_val.parquet", "p.json"}
    assert pl.read_parquet(io.BytesIO(files["samples_val.parquet"])).equals(SAMPLES)


def test_metrics_json_has_facts_by_split():
    checkpoint = SimpleNamespace(uri="c", step=1)
    manifest = SimpleNamespace(store_uri="s", version=1, manifest_hash="h", encoders={})
    inputs = SimpleNamespace(
        checkpoint=checkpoint, info=SimpleNamespace(git_commit="g"), run_id=None, manifest=manifest, num_excluded=None
    )
    config = EvaluateConfig(system="any", checkpoint="c")
    bare = SplitResult(split="dev", samples=SAMPLES.head(1), sections={})
    content = metrics_json(config, inputs, {"of_system": 1}, [RESULT, bare])
    assert content["splits"] == {"val": 2, "dev": 1}
    assert (content["of_system"], content["f"]) == (1, {"val": 3, "dev": None})
    assert content["per_class_ap"] == {"val": {}, "dev": {}}
    assert [(row["name"], row["group"]) for row in content["metrics"]] == [("val/x", "g")]


def test_nan_is_no_json():
    with pytest.raises(ValueError, match="JSON"):
        to_json({"x": float("nan")})
