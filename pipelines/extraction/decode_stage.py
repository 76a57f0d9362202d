"""Stage 1 of extraction, 1:N: a work row (a video, or a part of a long one) becomes its segments with the frames of
every encoder.

A failure becomes one row with `error` set: it travels to the end and is counted there.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa

from hvlm.errors import Reason, UserError, VideoError
from hvlm.video.index import VideoIndex
from hvlm.video.packets import BackendName, backend_for
from hvlm.video.sampling import sample_frames
from hvlm.video.segments import SegmentPlan, ViewPlan, plan_segments
from hvlm.video.views import FrameView
from infra import retries, storage
from pipelines.extraction.columns import COUNTS, ERROR, Failure, RowTiming, column, replace_column, row_table
from pipelines.extraction.frame_cache import BROKEN, FrameCache
from pipelines.extraction.ledger import DECODE, StageCount, counts_to_json
from pipelines.extraction.sandbox import DecodeLimits, SandboxError, process_sandbox
from pipelines.store.sources import file_stamp

logger = logging.getLogger(__name__)
_KEPT_INDEXES = 8  # a long video comes in several work rows; a worker process scans it once


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """The decode stage's settings; calling it on a table of work rows yields one-row tables of segments."""

    backend: BackendName
    segment_s: float
    views: dict[str, FrameView]
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    salvage: bool = False
    """Take what can be decoded of each video, up to its first damage, instead of failing there."""
    cache: FrameCache | None = None
    """Decode the copies in here; those that are missing are made first."""

    def __call__(self, work: pa.Table) -> Iterator[pa.Table]:
        for row in work.to_pylist():
            yield from self._decode_counted(row)

    def _decode_counted(self, work: dict[str, Any]) -> Iterator[pa.Table]:
        """Count the pieces of a work row as they go out; its last row tells them."""
        identity = {name: work[name] for name in ("video_id", "key", "content_hash")}
        count, told = StageCount(num_in=len(work["needs"])), False  # one each, where the video cannot even be opened
        for row in self._decode_work(work, identity, count):
            count.num_out += sum(row.column(column(name, "timing")).null_count == 0 for name in self.views)
            if row.column(ERROR).null_count == 0:
                count.num_failed = count.num_in - count.num_out - count.num_filtered
            if count.is_whole:
                row, told = replace_column(row, COUNTS, [counts_to_json({DECODE: count})]), True
            yield row
        if not told:
            yield row_table(list(self.views), {**identity, COUNTS: counts_to_json({DECODE: count})})

    def _decode_work(self, work: dict[str, Any], identity: dict[str, Any], count: StageCount) -> Iterator[pa.Table]:
        try:
            if self.cache:
                yield from self._decode_copy(self.cache, work, identity, count)
            else:
                yield from self._decode_file(work, identity, count)
        except (SandboxError, UserError):
            raise  # the machine's fault, or a full disk under the copies: it ends the job, no video is blamed
        except VideoError as error:
            if self.salvage and error.reason is Reason.TRUNCATED:  # it is not tried a third time
                error = VideoError(Reason.UNREADABLE, f"nothing could be salvaged: {error.message}")
            yield self._failed(identity, error)
        except OSError as error:
            yield self._failed(identity, storage.unreadable(error, work["uri"]))
        except Exception as error:  # decoders and remote storage libraries have exceptions of their own
            local = storage.is_local(work["uri"])
            reason = Reason.UNREADABLE if local else Reason.STORAGE_TRANSIENT
            message = f"{work['uri']}: {type(error).__name__}: {error}"
            yield self._failed(identity, VideoError(reason, message, permanent=local))

    def _failed(self, identity: dict[str, Any], error: VideoError, stage: str = DECODE) -> pa.Table:
        return row_table(
            list(self.views), {**identity, ERROR: Failure.of(stage, error).to_json(), "num_retries": retries.take()}
        )

    def _decode_file(self, work: dict[str, Any], identity: dict[str, Any], count: StageCount) -> Iterator[pa.Table]:
        """Yield the segments of a work row that are needed; say in `count` how many pieces there are, and are not."""
        local = storage.is_local(work["uri"])
        with storage.local_copy(work["uri"]) as path:
            if not local:
                _check_unchanged(work)
            index = self._index(str(path), work["content_hash"])
            segments = plan_segments(index, self.views, self.segment_s, work["spans_s"] or ())
            if (name := _without_rows(segments)) is not None:
                yield self._failed(identity, _no_rows(work, index), f"{DECODE}:{name}")
                return
            first = len(segments) * work["part"] // work["num_parts"]
            end = len(segments) * (work["part"] + 1) // work["num_parts"]
            needs = [
                [need["encoder"] for need in work["needs"] if segment.segment_index not in need["staged_segments"]]
                for segment in segments[first:end]
            ]
            count.num_in = (end - first) * len(work["needs"])
            count.num_filtered = count.num_in - sum(map(len, needs))
            for segment, needed in zip(segments[first:end], needs, strict=True):
                if needed:
                    row = self._decode_segment(identity, index, segment, needed)
                    if local:
                        _check_unchanged(work)
                    yield row

    def _decode_copy(
        self, cache: FrameCache, work: dict[str, Any], identity: dict[str, Any], count: StageCount
    ) -> Iterator[pa.Table]:
        """Decode the copy as any other file; one that is broken is made again, once."""
        uri = cache.copy_uri(work["content_hash"], self.salvage)
        plain, copy = replace(self, cache=None, salvage=False), work | {"uri": uri, "content_hash": uri, "stamp": None}
        made, done = not storage.exists(uri), 0
        if made:
            self._make_copy(cache.short_side, work, uri)
        try:
            for row in plain._decode_file(copy, identity, count):
                yield row
                done += 1
        except VideoError as error:
            if made or error.reason not in BROKEN:
                raise
            logger.warning("the copy of %s is broken and is made again: %s", work["uri"], error.message)
            storage.remove(uri)
            _indexes.pop((uri, False), None)
            self._make_copy(cache.short_side, work, uri)
            yield from islice(plain._decode_file(copy, identity, count), done, None)

    def _make_copy(self, short_side: int, work: dict[str, Any], uri: str) -> None:
        sandbox = process_sandbox(self.limits)
        with storage.local_copy(work["uri"]) as path:
            index = sandbox.salvage(str(path)) if self.salvage else sandbox.scan(str(path))
            num_segments = max(1, math.ceil(index.duration_s / self.segment_s))

            def shrink(file: BinaryIO) -> None:
                sandbox.shrink(index, file.name, short_side, num_segments)
                _check_unchanged(work)

            storage.atomic_write(uri, shrink)

    def _index(self, path: str, content_hash: str) -> VideoIndex:
        """Return the video's index, kept per worker process for the next parts of the same video."""
        key, sandbox = (content_hash, self.salvage), process_sandbox(self.limits)
        known = _indexes.pop(key, None) or (sandbox.salvage(path) if self.salvage else sandbox.scan(path))
        _indexes[key] = replace(known, path=path)
        if len(_indexes) > _KEPT_INDEXES:
            _indexes.popitem(last=False)
        return _indexes[key]

    def _decode_segment(
        self, identity: dict[str, Any], index: VideoIndex, segment: SegmentPlan, needed: list[str]
    ) -> pa.Table:
        views = {name: self.views[name] for name in needed}
        wanted = replace(segment, views={name: segment.views[name] for name in needed})
        if backend_for(self.backend, index.counted) != self.backend:
            _warn_once(self.backend)
        frames = process_sandbox(self.limits).decode(self.backend, index, wanted, views)
        values: dict[str, Any] = {
            **identity,
            "segment_index": segment.segment_index,
            "num_segments": segment.num_segments,
            "duration_s": index.duration_s,
            "num_retries": retries.take(),
            "num_frames_decoded": sum(len(array) for array in frames.values()),
        }
        for name, view in views.items():
            plan = segment.views[name]
            values[column(name, "frames")] = frames[name]
            values[column(name, "times")] = plan.row_time_s
            values[column(name, "timing")] = _timing(index, view, plan).to_json()
        return row_table(list(self.views), values)


@cache
def _warn_once(backend: BackendName) -> None:
    logger.warning(
        "decode.backend=%s cannot decode files that store no time stamps (AVI, raw streams) right: PyAV decodes these, "
        "into the same frames",
        backend,
    )


def _check_unchanged(work: dict[str, Any]) -> None:
    """The file that was just read must be the one whose hash the features will carry."""
    if work["stamp"] is None:
        return
    size_bytes, stamp = file_stamp(work["uri"])
    if (size_bytes, stamp) != (work["size_bytes"], work["stamp"]):
        message = f"{work['uri']} was replaced while the job ran; the next run reads it as it is then"
        raise VideoError(Reason.STORAGE_TRANSIENT, message, permanent=False)


def _without_rows(segments: list[SegmentPlan]) -> str | None:
    """Return the first encoder that gets no row of the whole video: only where it samples spans can that be."""
    names = list(segments[0].views)
    return next((name for name in names if not any(segment.views[name].num_rows for segment in segments)), None)


def _no_rows(work: dict[str, Any], index: VideoIndex) -> VideoError:
    spans = work["spans_s"]
    found = (
        f"of {len(spans)} annotated spans, the first [{spans[0][0]:g}, {spans[0][1]:g}] s, none" if spans else "no span"
    )
    message = f"'{work['video_id']}': {found} meets a row of its {index.duration_s:.2f} s; correct its annotations"
    return VideoError(Reason.ZERO_FRAMES, message)


def _timing(index: VideoIndex, view: FrameView, plan: ViewPlan) -> RowTiming:
    samples = sample_frames(index, view.sampling)
    return RowTiming(
        row_start=plan.row_start,
        num_rows=plan.num_rows,
        fps=1.0 / samples.stride_s,
        stride_s=samples.stride_s * view.clip_stride,
        clip_s=samples.stride_s * view.clip_frames,
        offset_s=samples.offset_s,
    )


_indexes: OrderedDict[tuple[str, bool], VideoIndex] = OrderedDict()
