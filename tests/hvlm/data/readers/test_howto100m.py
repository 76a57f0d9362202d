import io

import pytest

from hvlm.data.readers.howto100m import LabelledVideo, read_howto100m
from hvlm.errors import UserError


def read(*lines):
    text = "\n".join(("video_uid\tclip_start\tclip_end\tfps\tlabel", *lines)) + "\n"
    return read_howto100m(io.StringIO(text), "long.csv")


def test_labelled_videos_and_the_list_of_those_that_cannot_be():
    found = read("v1\t0\t312.5\t29.97\t42", "v2\t10\t3\t30\t0")
    assert found.rows == [LabelledVideo("v1", (0.0, 312.5), 42, 29.97)]
    assert [(problem.where, problem.video_id) for problem in found.problems] == [("long.csv, line 3", "v2")]


@pytest.mark.parametrize(
    ("line", "column"), [("v\t0\t1\t0\t1", "fps"), ("v\t0\t1\t30\t1.5", "label"), ("v\tx\t1\t30\t1", "clip_start")]
)
def test_another_cell_is_refused(line, column):
    with pytest.raises(UserError, match=rf"^long\.csv, line 2, {column}: got"):
        read(line)
