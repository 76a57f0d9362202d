import numpy as np
import pytest

from pipelines.store.odd_rows import OddRows, OddRowsError, check_odd_rows


def features(*rows):
    return np.array(rows, np.float16)


def test_constant_repeated_and_shared_rows_are_counted_apart():
    odd = OddRows()
    odd.add(features([1, 2], [3, 4], [1, 2], [5, 5]), "one")
    odd.add(features([3, 4], [6, 7], [3, 4]), "two")
    assert odd.num_rows == 7
    assert odd.counts() == {"num_constant": 1, "num_repeated": 2, "num_shared": 2}


def test_copies_of_one_video_share_nothing():
    odd = OddRows()
    odd.add(features([1, 2], [3, 4]), "same")
    odd.add(features([1, 2], [3, 4]), "same")
    assert odd.counts()["num_shared"] == 0


def test_rows_that_differ_in_one_bit_are_not_equal():
    odd = OddRows()
    odd.add(features([1, 2], [1, np.nextafter(np.float16(2), np.float16(3))]), "one")
    assert odd.counts()["num_repeated"] == 0


def rows_of(shard, num_rows, **counts):
    return {"shard": shard, "num_rows": num_rows, "num_constant": 0, "num_shared": 0, "num_repeated": 0} | counts


@pytest.mark.parametrize("kind", ["num_constant", "num_shared"])
def test_a_shard_with_too_many_odd_rows_is_refused_by_name(kind):
    good = [rows_of("features/clip-1a2b3c4d/gen-000001/a.tar", 60) for _ in range(2)]
    bad = [rows_of("features/clip-1a2b3c4d/gen-000001/b.tar", 60, **{kind: 61}) for _ in range(2)]
    check_odd_rows([*good, *bad], 0.51)
    with pytest.raises(OddRowsError, match=r"120 feature rows of .*b\.tar.*61.*max_odd_fraction=0\.5") as caught:
        check_odd_rows([*good, *bad], 0.5)
    assert "action=discard encoder=clip-1a2b3c4d" in str(caught.value)


def test_repeated_rows_are_refused_in_many_videos_and_not_in_few():
    still = [rows_of("features/clip-1a2b3c4d/gen-000001/a.tar", 60, num_repeated=590) for _ in range(10)]
    check_odd_rows(still[:9], 0.5)
    check_odd_rows(still, 0.99)
    with pytest.raises(OddRowsError, match=r"600 feature rows of .* 590 to one of the same"):
        check_odd_rows(still, 0.5)


def test_a_shard_of_few_rows_is_not_judged():
    check_odd_rows([rows_of("a.tar", 99, num_shared=99)], 0.0)
