"""Published features, decoded and encoded again by the same stages, and compared with what is stored."""

import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from hvlm.errors import Reason
from infra import storage
from infra.cluster import connect
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.dataset import extraction_dataset
from pipelines.extraction.outcomes import Outcomes
from pipelines.extraction.stages import encoder_columns, new_run_id, row_seconds, stages_of
from pipelines.extraction.work import work_table
from pipelines.ray_tasks import own_errors
from pipelines.store.catalog import FeatureStore
from pipelines.store.liveness import live_samples
from pipelines.store.manifest import read_sample
from pipelines.store.schema import VIDEOS
from pipelines.store.snapshot import content_hash
from pipelines.store.sources import file_stamp
from pipelines.store.spans import file_part
from pipelines.store.staging import STAGING_FOLDER, read_segment, remove_tars, sweep_orphans
from pipelines.store.upkeep.repair import ExtractedAgain, SampleId
from pipelines.store.upkeep.verify import Problem

_WAVE = 2000  # samples whose staged features stand in the store at once
_READ_THREADS = 16
_SAME_TIME_S = 1e-3
_NEEDS = pl.List(pl.Struct({"encoder": pl.String(), "staged_segments": pl.List(pl.Int64())}))


class Extractor:
    """Extracts published samples again; Ray is started by the first that can be. A `repair.Extract`.

    Args:
        stack: ends the connection to Ray.
    """

    def __init__(self, config: ExtractConfig, store: FeatureStore, stack: ExitStack) -> None:
        self._config, self._store, self._stack = config, store, stack
        self._columns = encoder_columns(config)

    def __call__(self, samples: pl.DataFrame) -> ExtractedAgain:
        """Decode and encode the videos of these catalog rows; their staged rows are not committed."""
        todo, failed = self._todo(samples)
        if todo.is_empty():
            return ExtractedAgain({}, failed)
        self._stack.enter_context(connect(self._config.cluster))
        segments, failures = self._extract(todo, salvage=False)
        cut = {video_id for video_id, failure in failures.items() if failure["reason"] == Reason.TRUNCATED}
        length = dict(samples.select("video_id", "duration_s").iter_rows())
        cut |= {name[0] for name, rows in segments.items() if rows[0]["duration_s"] != length[name[0]]}
        if cut and self._config.decode.on_truncated == "salvage":  # as the extraction did it
            kept, again = self._extract(todo.filter(pl.col("video_id").is_in(list(cut))), salvage=True)
            segments = {name: rows for name, rows in segments.items() if name[0] not in cut} | kept
            failures = {name: failure for name, failure in failures.items() if name not in cut} | again
        for video_id, failure in failures.items():
            for name in failure["encoders"]:
                failed[video_id, name, self.fingerprints[name]] = f"{failure['reason']}: {failure['message']}"
        return ExtractedAgain(segments, failed)

    def _extract(
        self, todo: pl.DataFrame, salvage: bool
    ) -> tuple[dict[SampleId, list[dict[str, Any]]], dict[str, dict[str, Any]]]:
        """Return the staged rows of the samples that came out whole, and the failures by video."""
        stages = stages_of(self._config, self._columns, self._store.uri, new_run_id(), salvage)
        outcomes = Outcomes.of(todo)
        work = work_table(todo, row_seconds(self._config, salvage))
        dataset = extraction_dataset(work, stages)
        for batch in own_errors(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)):
            outcomes.take(batch.to_pylist())
        outcomes.ledger.check()
        segments: dict[SampleId, list[dict[str, Any]]] = {}
        for row in sorted(outcomes.drain()[0], key=lambda row: int(row["segment_index"])):
            if row["video_id"] not in outcomes.ledger.failures:
                segments.setdefault((row["video_id"], row["encoder"], row["fingerprint"]), []).append(row)
        return segments, outcomes.ledger.failures

    @property
    def fingerprints(self) -> dict[str, str]:
        """Encoder name -> fingerprint of what it can extract."""
        return {name: column.fingerprint for name, column in self._columns.items()}

    def _todo(self, samples: pl.DataFrame) -> tuple[pl.DataFrame, dict[SampleId, str]]:
        """Return the videos to extract, as a plan has them, and why the other samples cannot be."""
        failed: dict[SampleId, str] = {}
        needs: dict[str, list[dict[str, Any]]] = {}
        for video_id, name, print_ in samples.select("video_id", "encoder", "fingerprint").iter_rows():
            if self.fingerprints.get(name) == print_:
                needs.setdefault(video_id, []).append({"encoder": name, "staged_segments": []})
            else:
                failed[video_id, name, print_] = (
                    f"its features are of {name}-{print_[:8]}; this configuration, with the decoder installed here, "
                    "makes others"
                )
        published = dict(samples.select("video_id", "content_hash").iter_rows())
        videos = self._videos(samples.filter(pl.col("video_id").is_in(list(needs))))
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            sources = list(pool.map(lambda video: _source(video, published[video["video_id"]]), videos))
        todo = []
        for video, source in zip(videos, sources, strict=True):
            wanted = sorted(needs[video["video_id"]], key=lambda need: str(need["encoder"]))
            if isinstance(source, str):
                failed |= {
                    (video["video_id"], need["encoder"], self.fingerprints[need["encoder"]]): source for need in wanted
                }
            else:
                todo.append(video | source | {"needs": wanted})
        return pl.DataFrame(todo, schema=VIDEOS | {"needs": _NEEDS}), failed

    def _videos(self, samples: pl.DataFrame) -> list[dict[str, Any]]:
        """Return the catalog's rows of the videos of samples."""
        videos = self._store.videos(include_tombstones=True).join(samples, on="video_id", how="semi")
        if self._config.samples_spans:  # as published: a newer snapshot may have other spans
            mine = samples.select("video_id", "metadata_hash").unique("video_id", keep="last", maintain_order=True)
            metadata = self._store.metadata().join(mine, on=["video_id", "metadata_hash"]).drop("metadata_hash")
            videos = videos.drop("metadata_json").join(metadata, on="video_id", how="left")
        return videos.to_dicts()


def _source(video: dict[str, Any], published_hash: str) -> dict[str, Any] | str:
    """Return size and stamp of a video's file as it is now, or why it is not what was published."""
    uri = video["uri"]
    try:
        size_bytes, stamp = file_stamp(uri)
        same = content_hash(uri, size_bytes, video["hash_kind"]) == file_part(published_hash)
    except (OSError, EOFError) as error:
        return storage.unreadable(error, uri).message
    if not same:
        return f"{uri} is not the file that was extracted any more; jobs.extract takes it as it is now"
    return {"size_bytes": size_bytes, "stamp": stamp}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecomputeReport:
    """What a recomputation compared.

    Args:
        chosen: samples that were drawn. compared: those that could be extracted. largest: over all of these the
            largest distance of a feature row from its recomputed one, as a share of that one's length. problems: the
            samples that differ by more than the tolerance. skipped: why a sample could not be extracted. num_others:
            live samples of encoders that the configuration does not have; none was drawn.
    """

    chosen: int
    compared: int
    largest: float
    problems: tuple[Problem, ...]
    skipped: dict[SampleId, str]
    num_others: int


def recompute(
    store: FeatureStore, extract: Extractor, share: float, seed: int, tolerance: float, damaged: frozenset[str]
) -> RecomputeReport:
    """Extract a random share of the live samples again and compare; call it while the store's lease is held.

    Args:
        share: of the live samples of the encoders that `extract` has; at least one is drawn.
        seed: another one draws others.
        tolerance: distance of a row from the recomputed one, as a share of its length.
        damaged: shards of which no sample is drawn.
    """
    sweep_orphans(store, [STAGING_FOLDER])
    live = live_samples(store.samples()).sort("key", "encoder", "fingerprint")
    mine = live.filter(_any_of(extract.fingerprints))
    rows = mine.filter(~pl.col("shard").is_in(list(damaged)))
    wanted = min(rows.height, max(1, round(share * rows.height)))
    chosen = rows[sorted(random.Random(seed).sample(range(rows.height), wanted))]
    compared, largest = 0, 0.0
    problems: list[Problem] = []
    skipped: dict[SampleId, str] = {}
    for wave in chosen.iter_slices(_WAVE):
        again = extract(wave)
        skipped |= again.failed
        for row, off in _distances(store, wave, again):
            compared, largest = compared + 1, max(largest, off)
            if off > tolerance:
                message = f"its features differ from what its video gives now by {off:.3g} of their length"
                problems.append(Problem(row["shard"], row["key"], row["video_id"], message))
    return RecomputeReport(
        chosen=chosen.height,
        compared=compared,
        largest=largest,
        problems=tuple(problems),
        skipped=skipped,
        num_others=live.height - mine.height,
    )


def _any_of(fingerprints: Mapping[str, str]) -> pl.Expr:
    pairs = ((pl.col("encoder") == name) & (pl.col("fingerprint") == print_) for name, print_ in fingerprints.items())
    return pl.any_horizontal(*pairs)


def _distances(
    store: FeatureStore, samples: pl.DataFrame, again: ExtractedAgain
) -> Iterator[tuple[dict[str, Any], float]]:
    """Yield the samples that were extracted again with their distance; then remove the staged features."""
    for row in samples.iter_rows(named=True):
        segments = again.segments.get((row["video_id"], row["encoder"], row["fingerprint"]))
        if segments:
            parts = [read_segment(store.uri, segment) for segment in segments]
            features, times_s = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            stored, meta = read_sample(store.uri, row)
            same_times = len(times_s) == meta.num_rows and np.allclose(times_s, meta.timestamps_s, atol=_SAME_TIME_S)
            yield row, distance(stored, features) if same_times else float("inf")
    remove_tars(store, again.tars())


def distance(stored_TD: npt.NDArray[np.float16], again_TD: npt.NDArray[np.float16]) -> float:
    """Return the largest ||stored - again|| / ||again|| of a row; infinity for another shape.

    Shape legend: T rows, D width.
    """
    if stored_TD.shape != again_TD.shape:
        return float("inf")
    if stored_TD.size == 0:
        return 0.0
    stored, again = stored_TD.astype(np.float64), again_TD.astype(np.float64)
    lengths = np.maximum(np.linalg.norm(again, axis=1), np.finfo(np.float64).tiny)
    return float((np.linalg.norm(stored - again, axis=1) / lengths).max())
