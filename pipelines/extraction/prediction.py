"""What an extraction will come to, from its plan alone: no file is opened for it. Kept beside what it came to."""

import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from hvlm.encoders.registry import describe_encoder
from hvlm.video.spans import covered_s
from hvlm.video.views import FrameView
from pipelines.extraction.config import ExtractConfig
from pipelines.store.generation import sample_bytes
from pipelines.store.plan import Plan
from pipelines.store.spans import spans_of

_WRITTEN_ANEW = ["staged", "relabelled"]
# The run's own first part that its time is foretold from: beyond the start-up, and not most of it.
_FIRST, _LAST = 0.1, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What there is to do.

    Args:
        num_videos: to decode. hours: of video to decode; of encoders that sample spans, of the annotated spans alone.
        feature_bytes: to publish, what was extracted before and is only written (anew) included; None where the number
            of rows is not foretold (keyframes, spans). seconds: that the extraction takes; None where there is nothing
            to tell it from.
    """

    num_videos: int
    hours: float
    feature_bytes: int | None
    seconds: float | None = None


def is_work(plan: Plan) -> bool:
    """Return whether anything is to be decoded or published."""
    return bool(plan.status.select((pl.col("runs") | pl.col("status").is_in(_WRITTEN_ANEW)).any()).item())


def predicted_from(config: ExtractConfig) -> list[str]:
    """Return the columns of the videos that `predict` reads."""
    return ["video_id", "duration_s", "fps", *(["metadata_json"] if config.samples_spans else [])]


def predict(config: ExtractConfig, plan: Plan, videos: pl.DataFrame) -> Prediction:
    """Return what the plan will come to; a video of unknown length counts as the mean of the others to decode.

    Args:
        videos: `predicted_from` of the snapshot's videos.
    """
    # A header may state 0: not known.
    known = videos.with_columns(pl.when(pl.col(name) > 0).then(pl.col(name)) for name in ("duration_s", "fps"))
    means = known.join(plan.todo.select("video_id"), on="video_id", how="semi").mean()
    known = known.with_columns(pl.col(name).fill_null(pl.lit(means[name].item())) for name in ("duration_s", "fps"))
    known = known.with_columns(pl.col("duration_s").fill_null(0.0))
    needs = plan.todo.select("video_id", "needs").explode("needs").unnest("needs").join(known, on="video_id")
    left = (pl.col("duration_s") - pl.col("staged_segments").list.len() * config.decode.segment_s).clip(lower_bound=0)
    if config.samples_spans:
        share = pl.when(pl.col("encoder").is_in(list(config.span_encoders))).then("span_share").otherwise(1.0)
        needs, left = needs.with_columns(span_share=_span_shares(needs)), left * share
    video_s = float(needs.group_by("video_id").agg(left.mean().alias("left"))["left"].sum())
    return Prediction(
        num_videos=plan.todo.height, hours=video_s / 3600, feature_bytes=_feature_bytes(config, plan, known)
    )


def _span_shares(videos: pl.DataFrame) -> pl.Series:
    """Return which part of each video lies in its annotated spans."""
    rows = videos.select("metadata_json", "duration_s").iter_rows()
    shares = [covered_s(spans_of(text), length_s) / length_s if text and length_s else 0.0 for text, length_s in rows]
    return pl.Series(shares, dtype=pl.Float64)


def _feature_bytes(config: ExtractConfig, plan: Plan, videos: pl.DataFrame) -> int | None:
    written = plan.status.filter(pl.col("runs") | pl.col("status").is_in(_WRITTEN_ANEW)).join(videos, on="video_id")
    total = 0
    for name, encoder in config.encoders.items():
        mine, described = written.filter(pl.col("encoder") == name), describe_encoder(encoder)
        if mine.is_empty():
            continue
        rows = rows_of(described.view, mine["duration_s"].to_numpy(), mine["fps"].to_numpy())
        if rows is None:
            return None
        size = sample_bytes(pl.col("num_rows"), pl.lit(described.dim))
        total += int(pl.DataFrame({"num_rows": rows}).select(size.sum()).item())
    return total


def rows_of(
    view: FrameView, duration_s: npt.NDArray[np.float64], fps: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64] | None:
    """Return how many feature rows videos of these lengths give; None where their lengths do not tell."""
    sampling = view.sampling
    if sampling.kind in ("keyframes", "spans") or (sampling.kind == "every_n" and not np.isfinite(fps).all()):
        return None
    if sampling.kind == "uniform_n":
        frames = np.full(len(duration_s), sampling.n)
    else:
        frames = np.ceil(duration_s * (sampling.fps if sampling.kind == "fps" else fps / sampling.n)).astype(np.int64)
    return np.maximum(1, (frames - view.clip_frames) // view.clip_stride + 1)


@dataclass(slots=True)
class Pace:
    """Foretells how long a run takes from its own first part, so that nothing is decoded twice for it.

    Args:
        total_s: seconds of video to do.
    """

    total_s: float
    predicted_s: float | None = None
    started_s: float = field(default_factory=lambda: time.monotonic())
    _first: tuple[float, float] | None = None

    def reached(self, video_s: float) -> None:
        """Say how many seconds of video are done now; a tenth of all settles the prediction."""
        elapsed = time.monotonic() - self.started_s
        if self.predicted_s is not None or video_s <= 0:
            return
        if self._first is None:
            self._first = (elapsed, video_s)  # until here Ray and the models were starting
            return
        start_s, before_s = self._first
        if _FIRST * self.total_s <= video_s <= _LAST * self.total_s and video_s > before_s:
            self.predicted_s = start_s + (elapsed - start_s) * (self.total_s - before_s) / (video_s - before_s)
