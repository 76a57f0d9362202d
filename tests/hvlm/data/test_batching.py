import numpy as np
import pytest

from hvlm.data.batching import (
    BatchingConfig,
    BatchPlan,
    Position,
    SampleIndex,
    index_samples,
    plan_epoch,
    plan_evaluation,
    rank_part,
    steps_per_epoch,
)
from hvlm.errors import UserError

CONFIG = BatchingConfig(global_batch_size=8, window=24, max_rows=50, pad_multiple=8)


def make_index(num_samples: int, seed: int = 0, max_length: int = 90) -> SampleIndex:
    rng = np.random.default_rng(seed)
    order = rng.permutation(num_samples)
    return index_samples(
        [f"v{i:04d}" for i in order],
        [int(length) for length in rng.integers(1, max_length, num_samples)],
        [f"s{i % 5}" for i in order],
    )


def same(a: BatchPlan, b: BatchPlan) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("num_samples", [8, 9, 31, 100, 257])
@pytest.mark.parametrize("epoch", [0, 3])
def test_every_sample_at_most_once_and_the_rest_is_counted(num_samples: int, epoch: int) -> None:
    index = make_index(num_samples)
    plan = plan_epoch(index, CONFIG, seed=7, epoch=epoch)
    used = np.concatenate([batch.samples for batch in plan.batches])
    assert len(set(used.tolist())) == len(used) == num_samples // 8 * 8
    assert plan.num_dropped == num_samples - len(used)
    assert len(plan.batches) == steps_per_epoch(num_samples, CONFIG)
    assert all(len(batch.samples) == 8 for batch in plan.batches)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_global_batches_do_not_depend_on_the_number_of_workers(world_size: int) -> None:
    plan = plan_epoch(make_index(100), CONFIG, seed=1, epoch=2)
    for batch in plan.batches:
        parts = [rank_part(batch, rank, world_size) for rank in range(world_size)]
        assert np.array_equal(np.concatenate([part.samples for part in parts]), batch.samples)
        assert np.array_equal(np.concatenate([part.first_rows for part in parts]), batch.first_rows)
        assert {(len(part.samples), part.padded_rows) for part in parts} == {(8 // world_size, batch.padded_rows)}


def test_the_order_of_the_manifest_does_not_matter() -> None:
    index = make_index(60)
    back = index_samples(list(index.keys)[::-1], index.lengths.tolist()[::-1], [f"s{n}" for n in index.shards[::-1]])
    for a, b in zip(
        plan_epoch(index, CONFIG, seed=3, epoch=1).batches,
        plan_epoch(back, CONFIG, seed=3, epoch=1).batches,
        strict=True,
    ):
        assert same(a, b)


def test_continuing_at_any_position_is_the_tail_of_the_uninterrupted_sequence() -> None:
    index = make_index(45)
    whole = [
        (epoch, step, batch)
        for epoch in range(3)
        for step, batch in enumerate(plan_epoch(index, CONFIG, seed=5, epoch=epoch).batches)
    ]
    for at, (epoch, step, _) in enumerate(whole):
        assert Position(*divmod(at, 5)) == (epoch, step)
        tail = plan_epoch(index, CONFIG, seed=5, epoch=epoch).batches[step:]
        assert all(same(a, b) for a, (_, _, b) in zip(tail, whole[at:], strict=False))


def test_epochs_and_seeds_differ_and_a_dropped_sample_is_not_always_the_same() -> None:
    index = make_index(44)
    orders = {
        tuple(np.concatenate([b.samples for b in plan_epoch(index, CONFIG, seed=s, epoch=e).batches]))
        for s in (0, 1)
        for e in range(6)
    }
    assert len(orders) == 12
    dropped = [
        set(range(44)) - {int(i) for b in plan_epoch(index, CONFIG, seed=0, epoch=e).batches for i in b.samples}
        for e in range(6)
    ]
    assert len(set.union(*dropped)) > 4


def test_long_videos_are_cut_inside_their_length_and_padding_is_a_multiple() -> None:
    index = make_index(80, max_length=200)
    firsts = set()
    for epoch in range(3):
        for batch in plan_epoch(index, CONFIG, seed=0, epoch=epoch).batches:
            lengths = index.lengths[batch.samples]
            assert (batch.num_rows == np.minimum(lengths, 50)).all()
            assert (batch.first_rows >= 0).all() and (batch.first_rows + batch.num_rows <= lengths).all()
            assert batch.padded_rows % 8 == 0 and 0 <= batch.padded_rows - batch.num_rows.max() < 8
            firsts |= set(batch.first_rows.tolist())
    assert len(firsts) > 10


def test_padding_share_by_hand() -> None:
    index = index_samples(["a", "b", "c", "d"], [2, 4, 7, 8], ["s"] * 4)
    plan = plan_epoch(index, BatchingConfig(global_batch_size=2, pad_multiple=4), seed=0, epoch=0)
    # Sorted by length: (2, 4) padded to 4 and (7, 8) padded to 8: 21 real rows of 24.
    assert plan.padding_share == pytest.approx(1 - 21 / 24)


def test_length_buckets_save_padding() -> None:
    index = make_index(512, max_length=100)
    wide = BatchingConfig(global_batch_size=8, window=512, max_rows=1000)
    narrow = BatchingConfig(global_batch_size=8, window=8, max_rows=1000)
    shares = [plan_epoch(index, config, seed=0, epoch=0).padding_share for config in (wide, narrow)]
    assert shares[0] < 0.1 < 0.35 < shares[1]


def test_lengths_are_spread_over_the_ranks() -> None:
    index = make_index(512, max_length=50)
    parts = [
        [rank_part(b, r, 2).num_rows.mean() for b in plan_epoch(index, CONFIG, seed=0, epoch=0).batches] for r in (0, 1)
    ]
    assert abs(np.mean(parts[0]) - np.mean(parts[1])) < 1.5


def test_evaluation_holds_every_sample_once() -> None:
    index = make_index(45)
    plans = plan_evaluation(index, CONFIG)
    assert sorted(np.concatenate([plan.samples for plan in plans]).tolist()) == list(range(45))
    assert [len(plan.samples) for plan in plans] == [8, 8, 8, 8, 8, 5]


def test_wrong_sizes_say_what_to_do() -> None:
    with pytest.raises(UserError, match="at most the 5 training samples"):
        plan_epoch(make_index(5), CONFIG, seed=0, epoch=0)
    with pytest.raises(UserError, match="a multiple of the number of workers, 3"):
        rank_part(plan_epoch(make_index(16), CONFIG, seed=0, epoch=0).batches[0], 0, 3)
    with pytest.raises(UserError, match=r"batching\.window"):
        BatchingConfig(window=0)
    with pytest.raises(ValueError, match="twice"):
        index_samples(["a", "a"], [1, 1], ["s", "s"])
    with pytest.raises(ValueError, match="'b' has no rows"):
        index_samples(["a", "b"], [1, 0], ["s", "s"])
