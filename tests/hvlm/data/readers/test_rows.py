from typing import NamedTuple

from hvlm.data.readers.rows import in_store


class Row(NamedTuple):
    video_id: str
    text: str


def test_rows_of_videos_that_the_store_lacks_are_counted_by_video():
    rows = [Row("b", "1"), Row("z", "2"), Row("a", "3"), Row("b", "4"), Row("y", "5"), Row("z", "6")]
    found = in_store(rows, ["a", "b", "c"])
    assert [row.text for row in found.rows] == ["1", "3", "4"]
    assert found.absent == {"y": 1, "z": 2}
    assert list(found.absent) == ["y", "z"]
