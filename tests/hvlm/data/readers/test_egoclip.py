import io

import pytest

from hvlm.data.readers.egoclip import COLUMNS, ClipRow, clip_row, clip_values, read_egoclip, write_egoclip
from hvlm.data.readers.rows import in_store
from hvlm.errors import UserError

GOOD = ["7", "v-1", "60.5", "narration_pass_1", "3", "3.3", "2.5", "4.0", "#C C folds a kite", "[93]", "[192, 12]"]


def read(*lines, header=COLUMNS):
    text = "\n".join("\t".join(cells) for cells in (header, *lines)) + "\n"
    return read_egoclip(io.StringIO(text, newline=""), "clips.csv")


def changed(**cells):
    return [cells.get(name, value) for name, value in zip(COLUMNS, GOOD, strict=True)]


def test_a_row_is_read_whole():
    read_rows = read(GOOD)
    assert read_rows.rows == [
        ClipRow(
            video_id="v-1", span_s=(2.5, 4.0), text="#C C folds a kite", verbs=(93,), nouns=(192, 12),
            annotator="narration_pass_1", narration_s=3.3, duration_s=60.5, narration_index=3, clip_index=7,
        )
    ]  # fmt: skip
    assert read_rows.problems == []


def test_a_summary_has_no_tags_and_no_narration_of_its_own():
    row = read(changed(tag_verb="[]", tag_noun="", narration_time="nan", narration_ind="", video_dur="")).rows[0]
    assert (row.verbs, row.nouns, row.narration_s, row.narration_index, row.duration_s) == ((), (), None, None, None)


def test_rows_that_cannot_be_are_listed_with_their_lines():
    found = read(
        GOOD,
        changed(clip_start="5"),
        changed(clip_start="-1"),
        changed(clip_start="70", clip_end="80"),
        changed(clip_end="61"),
    )
    assert [row.span_s for row in found.rows] == [(2.5, 4.0), (2.5, 60.5)]
    assert [(problem.where, problem.video_id) for problem in found.problems] == [
        (f"clips.csv, line {line}", "v-1") for line in (3, 4, 5, 6)
    ]
    for problem, word in zip(found.problems, ("impossible", "impossible", "starts beyond", "cut"), strict=True):
        assert word in problem.message


def test_videos_that_the_store_lacks_are_listed():
    rows = read(GOOD, changed(video_uid="v-2"), changed(video_uid="v-2")).rows
    found = in_store(rows, {"v-1"})
    assert ([row.video_id for row in found.rows], found.absent) == (["v-1"], {"v-2": 2})


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("clip_start", "soon"),
        ("clip_end", ""),
        ("video_dur", "-3"),
        ("video_uid", " "),
        ("clip_text", ""),
        ("tag_verb", "exit()"),
        ("tag_noun", "['cup']"),
        ("narration_ind", "x"),
    ],
)
def test_a_cell_of_another_kind_is_refused_with_file_line_and_column(column, value):
    with pytest.raises(UserError, match=rf"clips\.csv, line 3, {column}: got"):
        read(GOOD, changed(**{column: value}))


def test_a_missing_column_is_refused():
    with pytest.raises(UserError, match="tag_noun"):
        read(GOOD[:-1], header=COLUMNS[:-1])


def test_a_table_reads_back_what_was_written():
    bare = ClipRow("v", (0.0, 1.0), '"quoted",\ttwo\nlines')
    rows = [*read(GOOD).rows, bare]
    found = read_egoclip(io.StringIO(write_egoclip(rows), newline=""))
    assert (found.rows, found.problems) == (rows, [])


def test_a_row_object_reads_back_what_was_written():
    row = read(GOOD).rows[0]
    bare = ClipRow("v", (0.0, 1.0), "a text")
    for one in (row, bare):
        assert clip_row(clip_values(one), "x") == (one, None)
    assert "narration_time" not in clip_values(bare)


def test_a_row_object_needs_video_span_and_text():
    with pytest.raises(UserError, match="q1: got no 'clip_end'"):
        clip_row({"video_uid": "v", "clip_start": 0, "clip_text": "t"}, "q1")
