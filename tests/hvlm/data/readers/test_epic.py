import io
import pickle

import numpy as np
import pytest

from hvlm.data.readers.epic import EpicClip, EpicSentence, read_epic_clips, read_epic_sentences, read_relevancy, seconds
from hvlm.errors import UserError

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)


def line(name="P0_1_0", start="00:01:00.50", stop="01:00:02.0", verb="3", nouns='"[4, 2]"'):
    return f"{name},P0,P0_1,00:00:01.0,{start},{stop},1,2,lift a kite,lift,{verb},kite,4,\"['kite', 'cup']\",{nouns}"


def clips(*lines):
    return read_epic_clips(io.StringIO("\n".join((HEADER, *lines)) + "\n", newline=""), "epic.csv")


def test_the_official_columns():
    found = clips(line())
    assert found.rows == [EpicClip(0, "P0_1_0", "P0_1", (60.5, 3602.0), "lift a kite", 3, (4, 2))]
    assert found.problems == []


def test_a_clip_that_is_left_out_leaves_a_hole_in_the_matrix_lines():
    found = clips(line("a"), line("b", start="00:00:09", stop="00:00:08"), line("c"))
    assert [(clip.line, clip.narration_id) for clip in found.rows] == [(0, "a"), (2, "c")]
    assert [problem.where for problem in found.problems] == ["epic.csv, line 3"]
    assert "'b'" in found.problems[0].message
    matrix = read_relevancy(pickle.dumps(np.eye(3)), (3, 3))
    np.testing.assert_array_equal(matrix[[clip.line for clip in found.rows]], [[1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (line(start="61"), "line 2, start_timestamp"),
        (line(verb="lift"), "line 2, verb_class"),
        (line(nouns="['kite']"), "line 2, all_noun_classes"),
        (line() + "\n" + line(), "line 3: got narration_id 'P0_1_0' again"),
    ],
)
def test_another_cell_is_refused(wrong, message):
    with pytest.raises(UserError, match=rf"^epic\.csv, {message}"):
        clips(wrong)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("00:00:00", 0.0), ("00:08:01.47", 481.47), ("1:00:00.001", 3600.001), ("00:59:59.9", 3599.9)],
)
def test_seconds(text, expected):
    assert seconds(text, "x") == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("text", ["", "8:01", "00:61:00", "00:00:-1", "00:00:75"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UserError, match="x: got"):
        seconds(text, "x")


@pytest.mark.parametrize("header", ["narration_id,narration", "index,sentence"])
def test_sentences_of_both_releases(header):
    text = f"{header}\nP0_1_0,lift a kite\nP0_1_3,fold a kite\n"
    assert read_epic_sentences(io.StringIO(text)) == [
        EpicSentence("P0_1_0", "lift a kite"),
        EpicSentence("P0_1_3", "fold a kite"),
    ]


def test_other_sentences_are_refused():
    for text in ("id,words\n1,lift\n", "narration_id,narration\n1,\n"):
        with pytest.raises(UserError, match=r"^s\.csv"):
            read_epic_sentences(io.StringIO(text), "s.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((3, 2)), r"a matrix \(3, 2\)"),
        (np.full((2, 3), 1.5), "values from 1.5"),
        (np.full((2, 3), np.nan), "values from nan"),
        (np.array([["a"] * 3] * 2), "an array of <U1"),
        ([[0.0] * 3] * 2, "list"),
    ],
)
def test_another_matrix_is_refused(content, message):
    with pytest.raises(UserError, match=rf"^r\.pkl: got {message}"):
        read_relevancy(pickle.dumps(content), (2, 3), "r.pkl")
