"""Long-video classification: one task label for each video, `video_uid, clip_start, clip_end, fps, label` with TABs."""

from collections.abc import Iterable
from typing import NamedTuple

from hvlm.data.activitynet import SpanS, fit_span
from hvlm.data.readers.parsing import number, read_table, refuse, text_of, whole_number
from hvlm.data.readers.rows import Problem, Rows

COLUMNS = ("video_uid", "clip_start", "clip_end", "fps", "label")


class LabelledVideo(NamedTuple):
    """A long span of a video and its label, from 0. `fps` is the file's claim about the video."""

    video_id: str
    span_s: SpanS
    label: int
    fps: float


def read_howto100m(lines: Iterable[str], origin: str = "howto100m.csv") -> Rows[LabelledVideo]:
    """Return the labelled videos; spans that cannot be are left out and listed.

    Raises:
        UserError: a column is missing, or a cell is not what the format says.
    """
    read: Rows[LabelledVideo] = Rows([], [])
    for place, cells in read_table(lines, origin, COLUMNS, delimiter="\t"):
        video_id = text_of(cells["video_uid"], f"{place}, video_uid")
        start_s, end_s, fps = (number(cells[name], f"{place}, {name}") for name in ("clip_start", "clip_end", "fps"))
        if fps <= 0:
            refuse(f"{place}, fps", fps, "above 0")
        label = whole_number(cells["label"], f"{place}, label")
        span_s, problem = fit_span(start_s, end_s, None)
        if span_s is None:
            read.problems.append(Problem(place, video_id, str(problem)))
        else:
            read.rows.append(LabelledVideo(video_id, span_s, label, fps))
    return read
