"""Consistency beside raw: a collapsed model is perfectly consistent, and its companions say so."""

import math

import numpy as np

from pipelines.evaluation.hierarchical_vlm.consistency_group import consistency_group
from tests.pipelines.evaluation.made_records import record, segment


def _records(collapsed: bool):
    random = np.random.default_rng(0)
    truth = [segment("spin", 4, 12)]
    raws = [random.normal(size=(20, 6)) for _ in range(3)]
    return [
        record(f"v{i}", np.ones((20, 6)) if collapsed else raw, raw, annotations=truth) for i, raw in enumerate(raws)
    ]


def test_a_constant_output_is_consistent_and_nothing_else():
    rows = {row.name: row for row in consistency_group(_records(collapsed=True), "val").rows}
    assert abs(rows["val/frame/temporal_consistency"].ours - 1.0) < 1e-9
    assert rows["val/frame/temporal_consistency"].better == "neither"
    assert abs(rows["val/frame/contrast_gap"].ours) < 1e-6
    assert rows["val/frame/unit_std"].ours < 1e-3
    assert abs(rows["val/frame/boundary_contrast"].ours) < 1e-6
    assert rows["val/frame/random_pair_cosine_cross_video"].ours > 0.999
    assert rows["val/frame/unit_std"].raw > 0.8
    assert rows["val/frame/effective_rank"].raw > 5


def test_equal_features_give_equal_columns():
    group = consistency_group(_records(collapsed=False), "dev")
    for row in group.rows:
        assert row.name.startswith("dev/")
        assert row.ours == row.raw or (math.isnan(row.ours) and math.isnan(row.raw))
        assert row.count == 3
    assert {row.name for row in group.rows} >= {
        "dev/level_1/temporal_consistency",
        "dev/frame/temporal_consistency_std",
    }
