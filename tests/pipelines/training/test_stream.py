import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from hvlm.data.batching import BatchingConfig, Position, plan_epoch, plan_evaluation
from hvlm.data.collate import Batch, EncoderRows, join_encoders
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.training import stream as stream_module
from pipelines.training.config import StreamConfig, TextConfig
from pipelines.training.stream import FeatureReader, Prefetcher, SampleTable, StreamPlan, TrainStream, read_batch
from pipelines.training.text import TextTable, make_text_table, read_metas, read_text_table
from tests.pipelines.training.world import CLIP, DIMS, encode_text

BATCHING = BatchingConfig(global_batch_size=4, max_rows=20)


@pytest.fixture(scope="module")
def table(store: str) -> SampleTable:
    return SampleTable.of(open_manifest(store, ["clip", "c3d"]), "train")


@pytest.fixture(scope="module")
def texts(store: str) -> TextTable:
    manifest = open_manifest(store)
    metas = read_metas(manifest, ("train",))
    return read_text_table(make_text_table(manifest, TextConfig(encoder=CLIP), metas, encode_text))


def make_stream(
    table: SampleTable,
    texts: TextTable | None = None,
    rank: int = 0,
    world_size: int = 1,
    start: int = 0,
    num_steps: int = 10,
    config: StreamConfig | None = None,
) -> TrainStream:
    config = config or StreamConfig()
    per_epoch = len(table) // 4
    plan = StreamPlan(
        batching=BATCHING,
        seed=3,
        rank=rank,
        world_size=world_size,
        start=Position(*divmod(start, per_epoch)),
        num_steps=num_steps,
    )
    return TrainStream(FeatureReader(table, config), texts, plan, config)


def same(a: Batch, b: Batch) -> bool:
    pairs = zip(a, b, strict=True)
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def together(parts: list[Batch]) -> Batch:
    tensors = [torch.cat([part[i] for part in parts]) for i in range(1, 6)]  # type: ignore[arg-type,misc]
    return Batch(list(itertools.chain(*(part.keys for part in parts))), *tensors, num_bad_rows=0)


def test_the_global_batches_are_the_same_for_1_2_and_4_workers(table: SampleTable, texts: TextTable) -> None:
    alone = list(make_stream(table, texts))
    assert len(alone) == 10
    for world_size in (2, 4):
        ranks = [list(make_stream(table, texts, rank, world_size)) for rank in range(world_size)]
        assert {len(batches) for batches in ranks} == {10}
        for step, whole in enumerate(alone):
            assert same(together([batches[step] for batches in ranks]), whole)


def test_continuing_mid_epoch_is_the_tail(table: SampleTable, texts: TextTable) -> None:
    whole = list(make_stream(table, texts, num_steps=16))
    per_epoch = len(table) // 4
    for start in (1, per_epoch - 1, per_epoch, per_epoch + 1):
        tail = list(make_stream(table, texts, start=start, num_steps=16 - start))
        assert all(same(a, b) for a, b in zip(tail, whole[start:], strict=True))


def test_an_epoch_holds_no_sample_twice_and_another_epoch_other_texts(table: SampleTable, texts: TextTable) -> None:
    per_epoch = len(table) // 4
    batches = list(make_stream(table, texts, num_steps=2 * per_epoch))
    chosen = []
    for epoch in range(2):
        part = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        keys = [key for batch in part for key in batch.keys]
        assert len(set(keys)) == len(keys) == per_epoch * 4
        rows = torch.cat([batch.text_BX for batch in part if batch.text_BX is not None])
        chosen.append({key: rows[i].tolist() for i, key in enumerate(keys)})
    shared = chosen[0].keys() & chosen[1].keys()
    assert any(chosen[0][key] != chosen[1][key] for key in shared)


def test_a_batch_holds_what_the_store_holds(table: SampleTable, store: str) -> None:
    manifest = open_manifest(store, ["clip", "c3d"])
    rows = {row["key"]: row for row in manifest.frame.iter_rows(named=True)}
    plan = plan_epoch(table.index, BATCHING, seed=3, epoch=0).batches[0]
    batch = next(iter(make_stream(table)))
    for i, key in enumerate(batch.keys):
        parts = []
        for name in ("clip", "c3d"):
            features, meta = read_sample(store, rows[key], name)
            parts.append(EncoderRows(features, np.array(meta.timestamps_s), meta.clip_s))
        expected = join_encoders(parts)
        first, num = int(plan.first_rows[i]), int(plan.num_rows[i])
        assert int(batch.mask_BT[i].sum()) == num
        np.testing.assert_array_equal(batch.features_BTI[i, :num].numpy(), expected.features_TI[first : first + num])
        np.testing.assert_allclose(batch.times_BT[i, :num].numpy(), expected.times_s[first : first + num], rtol=1e-6)
    assert batch.features_BTI.shape[2] == sum(DIMS.values())


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


@pytest.mark.slow
def test_reading_processes_change_nothing(table: SampleTable, texts: TextTable) -> None:
    config = StreamConfig(num_processes=2)
    found = list(Prefetcher(make_stream(table, texts, num_steps=7, config=config), config, pin=False))
    expected = list(make_stream(table, texts, num_steps=7))
    assert len(found) == 7 and all(same(a, b) for a, b in zip(found, expected, strict=True))


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


def test_evaluation_reads_whole_videos_once(table: SampleTable) -> None:
    reader = FeatureReader(table, StreamConfig())
    keys = []
    for plan in plan_evaluation(table.index, BATCHING):
        batch = read_batch(reader, plan, None)
        keys += batch.keys
        assert batch.times_BT[:, 0].max() == 0
    assert sorted(keys) == sorted(table.index.keys)


def test_the_table_is_that_of_the_split(table: SampleTable, store: str) -> None:
    frame = open_manifest(store).frame
    assert set(table.index.keys) == set(frame.filter(pl.col("split") == "train")["key"])
    assert len(SampleTable.of(open_manifest(store), "no such split")) == 0
