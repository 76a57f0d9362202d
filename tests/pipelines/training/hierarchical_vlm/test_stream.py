import itertools

import numpy as np
import pytest
import torch

from hvlm.data.batching import plan_epoch, plan_evaluation
from hvlm.data.collate import Batch, EncoderRows, join_encoders
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.training.config import StreamConfig
from pipelines.training.hierarchical_vlm.stream import read_batch
from pipelines.training.stream import FeatureReader, Prefetcher, SampleTable
from pipelines.training.text import TextTable
from tests.pipelines.training.streams import BATCHING, make_stream, same
from tests.pipelines.training.world import DIMS


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


@pytest.mark.slow
def test_reading_processes_change_nothing(table: SampleTable, texts: TextTable) -> None:
    config = StreamConfig(num_processes=2)
    found = list(Prefetcher(make_stream(table, texts, num_steps=7, config=config), config, pin=False))
    expected = list(make_stream(table, texts, num_steps=7))
    assert len(found) == 7 and all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_evaluation_reads_whole_videos_once(table: SampleTable) -> None:
    reader = FeatureReader(table, StreamConfig())
    keys = []
    for plan in plan_evaluation(table.index, BATCHING):
        batch = read_batch(reader, plan, None)
        keys += batch.keys
        assert batch.times_BT[:, 0].max() == 0
    assert sorted(keys) == sorted(table.index.keys)
