import pytest

from hvlm.data.splits import SplitConfig, assign_split, order_hash
from hvlm.errors import UserError

IDS = [f"video{index}" for index in range(4000)]


def share(config, subset, split):
    return sum(assign_split(video_id, subset, config) == split for video_id in IDS) / len(IDS)


def test_shares_without_a_subset():
    config = SplitConfig(val_fraction=0.2, dev_fraction=0.1)
    assert share(config, None, "val") == pytest.approx(0.2, abs=0.02)
    assert share(config, None, "dev") == pytest.approx(0.1, abs=0.02)
    assert share(config, None, "train") == pytest.approx(0.7, abs=0.02)


def test_official_subsets_win_and_training_gives_up_its_dev_part():
    config = SplitConfig(val_fraction=0.2, dev_fraction=0.1)
    assert share(config, "training", "dev") == pytest.approx(0.1, abs=0.02)
    assert share(config, "training", "train") == pytest.approx(0.9, abs=0.02)
    assert share(config, "validation", "val") == 1.0
    assert share(config, "testing", "test") == 1.0


def test_a_seed_gives_another_assignment_and_the_same_one_the_same():
    one, other = SplitConfig(seed=0), SplitConfig(seed=1)
    assert [assign_split(i, None, one) for i in IDS[:50]] == [assign_split(i, None, SplitConfig()) for i in IDS[:50]]
    assert [assign_split(i, None, one) for i in IDS[:50]] != [assign_split(i, None, other) for i in IDS[:50]]


def test_growing_the_data_set_moves_no_video():
    config = SplitConfig()
    before = {video_id: assign_split(video_id, None, config) for video_id in IDS[:10]}
    assert {video_id: assign_split(video_id, None, config) for video_id in IDS}.items() >= before.items()


def test_unknown_subset_names_the_video():
    with pytest.raises(UserError, match=r"'v7'.*holdout"):
        assign_split("v7", "holdout", SplitConfig())


@pytest.mark.parametrize(
    "values", [{"val_fraction": 1.0}, {"dev_fraction": -1}, {"val_fraction": 0.6, "dev_fraction": 0.4}]
)
def test_impossible_fractions_are_refused(values):
    with pytest.raises(UserError, match=r"splits\."):
        SplitConfig(**values)


def test_order_is_by_hash_not_by_name():
    assert order_hash("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert sorted("abcdef", key=order_hash) != list("abcdef")
