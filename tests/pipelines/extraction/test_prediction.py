"""What is foretold is what comes out, as far as a plan can know it."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hvlm.video.index import VideoIndex
from hvlm.video.sampling import SamplingConfig
from hvlm.video.segments import plan_segments
from hvlm.video.views import FrameView
from pipelines.extraction import prediction as prediction_module
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.prediction import Pace, is_work, predict, predicted_from, rows_of
from pipelines.extraction.report import extraction_report
from pipelines.extraction.run import extract, plan_of
from pipelines.extraction.stages import encoder_columns
from pipelines.store.catalog import FeatureStore
from pipelines.store.plan import Plan

Config = Callable[..., ExtractConfig]
TINY_CLIP = "jobs/configs/models/tiny_clip.json"


def index(num_frames: int, fps: int) -> VideoIndex:
    pts = np.arange(num_frames)
    times = (float(fps), num_frames / fps, Fraction(1, fps))
    return VideoIndex("v", 0, "h264", 8, 8, 0, *times, pts, np.arange(num_frames) % 12 == 0, False)


@pytest.mark.parametrize("clip", [(1, 1), (16, 8), (16, 16), (4, 9)], ids=str)
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(fps=4.0),
        SamplingConfig(fps=0.3),
        SamplingConfig(fps=30.0),
        SamplingConfig(kind="every_n", n=7),
        SamplingConfig(kind="uniform_n", n=24),
    ],
    ids=lambda sampling: f"{sampling.kind}-{sampling.fps}-{sampling.n}",
)
def test_rows_are_those_that_decoding_plans(sampling: SamplingConfig, clip: tuple[int, int]) -> None:
    view = FrameView(sampling=sampling, clip_frames=clip[0], clip_stride=clip[1])
    lengths = [(1, 10), (37, 10), (250, 25), (1001, 24)]
    wanted = []
    for num_frames, fps in lengths:
        segments = plan_segments(index(num_frames, fps), {"x": view}, 10.0)
        wanted.append(sum(segment.views["x"].num_rows for segment in segments))
    found = rows_of(view, np.array([n / fps for n, fps in lengths]), np.array([float(fps) for _, fps in lengths]))
    assert found is not None and found.tolist() == wanted


def test_what_the_length_does_not_tell_is_unknown() -> None:
    keyframes = FrameView(sampling=SamplingConfig(kind="keyframes"))
    spans = FrameView(sampling=SamplingConfig(kind="spans"))
    every = FrameView(sampling=SamplingConfig(kind="every_n", n=2))
    assert rows_of(keyframes, np.ones(1), np.ones(1)) is None
    assert rows_of(spans, np.ones(1), np.ones(1)) is None
    assert rows_of(every, np.ones(1), np.array([np.nan])) is None


def test_what_is_staged_is_not_decoded_again_and_an_unknown_length_is_the_mean(config: Config) -> None:
    needs = [{"encoder": "clip", "staged_segments": [0]}, {"encoder": "c3d", "staged_segments": []}]
    todo = pl.DataFrame({"video_id": ["a", "b"], "needs": [needs, needs[1:]]})
    status = [("a", "clip"), ("a", "c3d"), ("b", "c3d"), ("c", "clip")]
    pairs = pl.DataFrame(status, schema=["video_id", "encoder"], orient="row").with_columns(
        status=pl.Series(["partial", "new", "new", "done"]), runs=pl.Series([True, True, True, False])
    )
    videos = pl.DataFrame(
        {"video_id": ["a", "b", "c"], "duration_s": [10.0, 0.0, 500.0], "fps": [10.0, None, 10.0]}
    ).select(predicted_from(config()))
    found = predict(config(), Plan(todo, pairs, {}, 3), videos)
    assert found.num_videos == 2
    assert found.hours * 3600 == pytest.approx((8.0 + 10.0) / 2 + 10.0)  # two seconds of a by clip are staged
    c3d = (100 - 16) // 8 + 1
    assert found.feature_bytes == 40 * (2 * 128 + 20) + 4096 + 2 * (c3d * (2 * 32 + 20) + 4096)


def test_of_encoders_that_sample_spans_the_spans_alone_are_hours(config: Config) -> None:
    sampling = {"sampling": {"kind": "spans", "fps": 4.0}}
    clip, c3d = ({"kind": "clip", "model": TINY_CLIP, "pretrained": "random"} | more for more in (sampling, {}))
    source = {"uri": "/videos", "annotations_uri": "/a.json"}
    spans = json.dumps({"annotations": [{"segment": [1.0, 3.0]}, {"segment": [5.0, 99.0]}], "captions": []})
    videos = pl.DataFrame(
        {"video_id": ["a", "b"], "duration_s": [10.0, None], "fps": [10.0, 10.0], "metadata_json": [spans, spans]}
    )
    needs = [{"encoder": "clip", "staged_segments": []}]
    status = pl.DataFrame({"video_id": ["a", "b"], "encoder": "clip", "status": "new", "runs": True})
    schema = {
        "video_id": pl.String,
        "needs": pl.List(pl.Struct({"encoder": pl.String, "staged_segments": pl.List(pl.Int64)})),
    }
    todo = pl.DataFrame([("a", needs), ("b", [needs[0] | {"staged_segments": [0]}])], schema, orient="row")

    def hours(encoders: dict[str, Any], todo: pl.DataFrame) -> float:
        made = config(encoders=encoders, source=source)
        return predict(made, Plan(todo, status, {}, 2), videos.select(predicted_from(made))).hours * 3600

    assert hours({"clip": clip}, todo[:1]) == pytest.approx(7.0)
    assert hours({"clip": c3d}, todo[:1]) == pytest.approx(10.0)
    assert hours({"clip": clip}, todo) == pytest.approx(7.0 + 8.0 * 0.7)  # 2 of b's 10 s are staged
    both = pl.DataFrame({"video_id": ["a"], "needs": [[*needs, {"encoder": "whole", "staged_segments": []}]]})
    assert hours({"clip": clip, "whole": c3d}, both) == pytest.approx((7.0 + 10.0) / 2)


def test_the_pace_of_the_first_part_is_that_of_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(prediction_module.time, "monotonic", lambda: now[0])
    pace = Pace(total_s=1000.0)
    for elapsed, done in ((5.0, 0.0), (12.0, 20.0), (13.0, 70.0), (15.0, 170.0), (30.0, 900.0)):
        now[0] = 100.0 + elapsed
        pace.reached(done)
    assert pace.predicted_s == pytest.approx(12.0 + 3.0 * 980.0 / 150.0)


def test_a_run_whose_first_part_is_most_of_it_foretells_nothing() -> None:
    pace = Pace(total_s=10.0)
    for done in (4.0, 9.0, 10.0):
        pace.reached(done)
    assert pace.predicted_s is None


def test_the_job_foretells_from_its_plan_and_says_what_came_of_it(
    ray_cluster: None, config: Config, videos: Path
) -> None:
    report = extract(config())
    assert report.predicted is not None
    assert report.predicted.num_videos == report.num_done == 4 and report.predicted.hours == pytest.approx(11 / 3600)
    assert report.video_s == pytest.approx(11.0)
    sizes = FeatureStore.open(config().store_uri).samples()["size"].sum()
    # Small samples: half their bytes are headers, which the prediction takes for 4 KiB.
    assert report.predicted.feature_bytes is not None and 0.5 < sizes / report.predicted.feature_bytes < 1.5
    text = extraction_report(config().store_uri, report)
    assert "predicted  4 videos, 0.00 h of video" in text
    assert "came to    4 videos (× 1.00), 0.00 h of video (× 1.00)" in text and "MiB (× " in text
    store = FeatureStore.open(config().store_uri)
    assert not is_work(plan_of(config(), store, encoder_columns(config())))
    again = extract(config())
    assert again.predicted is None and "came to" not in extraction_report(config().store_uri, again)
