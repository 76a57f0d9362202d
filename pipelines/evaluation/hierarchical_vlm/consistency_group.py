"""Temporal consistency of ours beside the raw rows, with the companions without which it means nothing."""

from collections.abc import Sequence

import numpy as np

from hvlm.metrics.classification import mean_of_present
from hvlm.metrics.consistency import (
    UnitMoments,
    cross_video_cosine,
    effective_rank,
    unit_std,
)
from pipelines.evaluation.hierarchical_vlm.records import KindRecord, VideoRecord
from pipelines.evaluation.metric_table import KINDS, Better, GroupResult, MetricRow

# Smoothness has no better direction: a constant output is perfectly smooth. The two contrasts have one.
_BETTER: dict[str, Better] = {"contrast_gap": "higher", "boundary_contrast": "higher"}
_HEADLINES = ("temporal_consistency", "contrast_gap", "boundary_contrast", "effective_rank")


def consistency_group(records: Sequence[VideoRecord], split: str) -> GroupResult:
    """Return the consistency metrics of one split."""
    columns = {kind: _of_kind([record.kinds[kind] for record in records]) for kind in KINDS}
    stride_s = float(np.median([record.stride_s for record in records]))
    rows = [
        MetricRow(
            name=f"{split}/{name}" if "/" in name else f"{split}/frame/{name}",
            ours=columns["ours"].get(name),
            raw=columns["raw"].get(name),
            count=len(records),
            better=_BETTER.get(name, "neither"),
            headline=name in _HEADLINES,
            note=f"rows are {stride_s:g} s apart" if name == "temporal_consistency" else "",
        )
        for name in dict.fromkeys([*columns["ours"], *columns["raw"]])
    ]
    return GroupResult(rows, [], {"stride_s": stride_s})


def _of_kind(kinds: Sequence[KindRecord]) -> dict[str, float]:
    consistency = np.array([kind.temporal_consistency for kind in kinds])
    same_video = mean_of_present(np.array([kind.distant_cosine for kind in kinds]))
    cross_video = cross_video_cosine(np.stack([kind.mean_unit_D for kind in kinds]).astype(np.float64))
    moments, boundary = UnitMoments.of(kinds[0].rows_ND), kinds[0].boundary
    for kind in kinds[1:]:
        moments, boundary = moments + UnitMoments.of(kind.rows_ND), boundary + kind.boundary
    mean = mean_of_present(consistency)
    present = consistency[~np.isnan(consistency)]
    values = {
        "temporal_consistency": mean,
        "temporal_consistency_std": float(present.std()) if present.size else float("nan"),
        "random_pair_cosine_same_video": same_video,
        "random_pair_cosine_cross_video": cross_video,
        "contrast_gap": mean - mean_of_present(np.array([same_video, cross_video])),
        "boundary_contrast": boundary.contrast(),
        "unit_std": unit_std(moments),
        "effective_rank": effective_rank(moments),
    }
    return values | _levels(kinds)


def _levels(kinds: Sequence[KindRecord]) -> dict[str, float]:
    depth = max(len(kind.level_consistency) for kind in kinds)
    return {
        f"level_{level + 1}/temporal_consistency": mean_of_present(
            np.array(
                [kind.level_consistency[level] if level < len(kind.level_consistency) else np.nan for kind in kinds]
            )
        )
        for level in range(depth)
    }
