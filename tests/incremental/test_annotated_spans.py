"""A store of annotated spans: only they are extracted, and only when they change again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvlm.errors import UserError
from infra.config_io import build_config
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.preview import preview
from pipelines.extraction.run import ExtractReport, extract
from pipelines.store.catalog import FeatureStore
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.store.upkeep.verify import verify_store
from tests.pipelines.extraction.conftest import write_video

CLIP = {"kind": "clip", "model": "jobs/configs/models/tiny_clip.json", "pretrained": "random"}
C3D = {"kind": "c3d", "weights": "random", "fps": 10.0, "stride_frames": 16, "width": 0.0625, "fc_dim": 32}
SPANS = {"v0": [[0.6, 1.2]], "v1": [[1.0, 2.0]], "v2": [[3.0, 3.4], [0.5, 0.6]]}
# 4 s: rows of CLIP at 4 fps, two clips of C3D from 0 s and 1.6 s, both of 1.6 s.
ROWS = {"v0": ([0.5, 0.7, 1.0], [0.0]), "v1": ([1.0, 1.2, 1.5, 1.7], [0.0, 1.6]), "v2": ([0.5, 3.0, 3.2], [0.0, 1.6])}


def config(folder: Path, store: str, kind: str) -> ExtractConfig:
    values = {
        "store_uri": str(folder / store),
        "source": {"uri": str(folder / "videos"), "annotations_uri": str(folder / "annotations.json")},
        "encoders": {
            "clip": CLIP | {"sampling": {"kind": kind, "fps": 4.0}},
            "c3d": C3D | {"only_spans": kind == "spans"},
        },
        "decode": {"segment_s": 2.0},
        "resources": {"segments_per_batch": 2, "segments_per_tar": 2, "encoder_threads": 1},
    }
    return build_config(ExtractConfig, values, origin="test")


def annotate(folder: Path, spans: dict[str, list[list[float]]], word: str = "run") -> None:
    database = {name: {"captions": [{"text": word, "segment": s} for s in found]} for name, found in spans.items()}
    (folder / "annotations.json").write_text(json.dumps({"database": database}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    for number in range(3):
        write_video(tmp_path / "videos" / f"v{number}.mp4", seconds=4.0, seed=number)
    annotate(tmp_path, SPANS)
    return tmp_path


def statuses(report: ExtractReport | Any) -> dict[str, int]:
    return {name: number for name, number in report.plan.counts["clip"].items() if number}


def stored(uri: str, encoder: str) -> dict[str, tuple[np.ndarray, list[float]]]:
    found = {row["video_id"]: read_sample(uri, row) for row in open_manifest(uri).rows(encoder).iter_rows(named=True)}
    return {name: (features.astype(np.float32), meta.timestamps_s) for name, (features, meta) in found.items()}


def test_spans_alone_are_extracted_and_a_change_of_one_costs_one(ray_cluster: None, folder: Path) -> None:
    spans, whole = config(folder, "spans", "spans"), config(folder, "whole", "fps")
    seen = preview(spans)
    assert (seen.predicted.num_videos, seen.predicted.feature_bytes) == (3, None) and seen.predicted.seconds is not None
    assert seen.predicted.hours * 3600 == pytest.approx(0.6 + 1.0 + 0.5)  # of 12 s
    first = extract(spans)
    assert (first.num_done, first.num_frames) == (3, 10 + 5 * 16) and first.video_s == pytest.approx(2.1)
    extract(whole)
    for number, encoder in enumerate(("clip", "c3d")):
        everything = stored(whole.store_uri, encoder)
        for name, (features, times_s) in stored(spans.store_uri, encoder).items():
            assert times_s == pytest.approx(ROWS[name][number])
            rows = [everything[name][1].index(time) for time in times_s]
            np.testing.assert_allclose(features, everything[name][0][rows], atol=2e-2)

    annotate(folder, SPANS, word="jump")  # other words
    second = extract(spans)
    assert statuses(second) == {"relabelled": 3} and (second.num_done, second.num_frames) == (0, 0)
    assert second.published.published == 3
    annotate(folder, SPANS | {"v1": [[1.0, 1.5], [1.4, 2.2]]}, word="jump")
    assert statuses(preview(spans)) == {"changed": 1, "done": 2}
    third = extract(spans)
    assert third.plan.todo["video_id"].to_list() == ["v1"] and (third.num_done, third.num_frames) == (1, 5 + 2 * 16)
    assert stored(spans.store_uri, "clip")["v1"][1] == pytest.approx([1.0, 1.2, 1.5, 1.7, 2.0])
    annotate(folder, SPANS, word="jump")  # and back: the features of these spans are still there
    assert extract(spans).num_frames == 0 and not verify_store(spans.store_uri).problems
    assert stored(spans.store_uri, "clip")["v1"][1] == pytest.approx(ROWS["v1"][0])


def test_a_video_without_spans_is_in_quarantine_until_it_has_some(ray_cluster: None, folder: Path) -> None:
    spans = config(folder, "spans", "spans")
    annotate(folder, {"v0": SPANS["v0"], "v1": [[7.0, 8.0]]})
    assert extract(spans).num_done == 1
    failures = FeatureStore.open(spans.store_uri).failures().sort("video_id")
    assert failures.select("video_id", "stage", "encoder", "reason", "permanent").rows() == [
        ("v1", "decode", "clip", "zero_frames", True),
        ("v2", "decode", "clip", "zero_frames", True),
    ]
    assert "the first [7, 8] s, none meets" in failures["message"][0] and "no span meets" in failures["message"][1]
    again = extract(spans)
    assert again.plan.todo.is_empty() and statuses(again) == {"done": 1, "failed_before": 2}
    annotate(folder, SPANS)
    assert extract(spans).num_done == 2 and set(stored(spans.store_uri, "c3d")) == set(SPANS)


def test_a_store_of_whole_videos_refuses_spans_and_stays_as_it_is(ray_cluster: None, folder: Path) -> None:
    extract(config(folder, "store", "fps"))
    for job in (preview, extract):
        with pytest.raises(
            UserError, match=r"store: got an encoder that samples annotated spans; .* another store_uri"
        ):
            job(config(folder, "store", "spans"))
    assert extract(config(folder, "store", "fps")).plan.todo.is_empty()
