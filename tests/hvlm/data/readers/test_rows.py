from typing import NamedTuple

import pytest

from hvlm.data.readers.rows import fit_span, in_store


class Row(NamedTuple):
    video_id: str
    text: str


def test_rows_of_videos_that_the_store_lacks_are_counted_by_video():
    rows = [Row("b", "1"), Row("z", "2"), Row("a", "3"), Row("b", "4"), Row("y", "5"), Row("z", "6")]
    found = in_store(rows, ["a", "b", "c"])
    assert [row.text for row in found.rows] == ["1", "3", "4"]
    assert found.absent == {"y": 1, "z": 2}
    assert list(found.absent) == ["y", "z"]


@pytest.mark.parametrize(
    ("span", "duration", "fitted", "problem"),
    [
        ((1.0, 2.0), None, (1.0, 2.0), None),
        ((1.0, 2.0), 2.0, (1.0, 2.0), None),
        ((1.0, 2.015), 2.0, (1.0, 2.0), None),
        ((1.0, 2.5), 2.0, (1.0, 2.0), "cut"),
        ((2.0, 2.5), 2.0, None, "starts beyond"),
        ((2.0, 2.0), None, None, "impossible"),
        ((2.0, 1.0), None, None, "impossible"),
        ((-0.1, 1.0), None, None, "impossible"),
    ],
)
def test_a_span_is_kept_cut_or_left_out(span, duration, fitted, problem):
    found, message = fit_span(*span, duration)
    assert found == fitted
    assert (message is None) == (problem is None) and (problem or "") in (message or "")
