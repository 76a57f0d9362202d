import itertools
from collections.abc import Iterator
from dataclasses import replace

import polars as pl
import pytest

from hvlm.data.collate import Batch
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.training import stream as stream_module
from pipelines.training.config import StreamConfig
from pipelines.training.hierarchical_vlm.stream import TrainStream
from pipelines.training.stream import FeatureReader, Prefetcher, SampleTable
from pipelines.training.text import TextTable
from tests.pipelines.training.streams import make_stream, same


def test_rows_where_another_encoder_has_a_gap_are_not_read(table: SampleTable, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_a_span(store_uri: str, row: dict[str, object]) -> object:
        features, meta = read_sample(store_uri, row)
        if meta.encoder == "clip":
            return features, meta
        return features[:1], replace(meta, num_rows=1, timestamps_s=meta.timestamps_s[:1], duration_s=999.0)

    whole = FeatureReader(table, StreamConfig()).video(0).times_s
    monkeypatch.setattr(stream_module, "read_sample", of_a_span)
    times_s = FeatureReader(table, StreamConfig()).video(0).times_s
    assert 0 < len(times_s) < len(whole) and times_s.tolist() == whole[: len(times_s)].tolist()


def test_what_is_in_memory_is_not_read_again(table: SampleTable, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def counting(store_uri: str, row: dict[str, object], encoder: str | None = None) -> object:
        reads.append(str(row["key"]))
        return read_sample(store_uri, row, encoder)

    monkeypatch.setattr(stream_module, "read_sample", counting)
    per_epoch = len(table) // 4
    list(make_stream(table, num_steps=3 * per_epoch))
    assert len(reads) <= 2 * len(table)
    reads.clear()
    list(make_stream(table, num_steps=3 * per_epoch, config=StreamConfig(cache_mib=0)))
    assert len(reads) == 3 * per_epoch * 4 * 2


def test_the_cache_is_bounded(table: SampleTable) -> None:
    reader = FeatureReader(table, StreamConfig(cache_mib=1))
    reader._capacity_bytes = 5000
    for sample in range(len(table)):
        reader.video(sample)
    held = sum(video.features_TI.nbytes for video in reader._cache.values())
    assert 0 < held <= 5000 and held == reader._held_bytes
    assert list(reader._cache)[-1] == len(table) - 1


@pytest.mark.parametrize("config", [StreamConfig(prefetch_batches=1), StreamConfig(read_threads=3)])
def test_reading_ahead_changes_nothing(table: SampleTable, texts: TextTable, config: StreamConfig) -> None:
    expected = list(make_stream(table, texts))
    found = list(Prefetcher(make_stream(table, texts, config=config), config, pin=False))
    assert len(found) == 10 and all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_an_error_while_reading_ahead_is_raised_and_a_closed_reader_ends(
    table: SampleTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(TrainStream):
        def __iter__(self) -> Iterator[Batch]:
            yield from itertools.islice(super().__iter__(), 2)
            raise OSError("the disk is gone")

    stream = make_stream(table)
    stream.__class__ = Broken
    with pytest.raises(OSError, match="the disk is gone"):
        list(Prefetcher(stream, StreamConfig(), pin=False))
    prefetcher = Prefetcher(make_stream(table, num_steps=1000), StreamConfig(prefetch_batches=1), pin=False)
    iterator = iter(prefetcher)
    next(iterator)
    prefetcher.close()
    import threading
    import time

    deadline = time.monotonic() + 5
    while any(thread.name == "batch-reader" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(thread.name == "batch-reader" for thread in threading.enumerate())


def test_the_table_is_that_of_the_split(table: SampleTable, store: str) -> None:
    frame = open_manifest(store).frame
    assert set(table.index.keys) == set(frame.filter(pl.col("split") == "train")["key"])
    assert len(SampleTable.of(open_manifest(store), "no such split")) == 0
