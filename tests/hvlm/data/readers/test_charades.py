import io

import pytest

from hvlm.data.readers.charades import (
    CharadesAction,
    CharadesClip,
    read_charades,
    read_charades_classes,
    read_charades_clips,
)
from hvlm.errors import UserError

NAMES = ("Holding a kite", "Folding a kite", "Flying")


def videos(*lines):
    text = "\n".join(("id,subject,script,actions,length", *lines)) + "\n"
    return read_charades(io.StringIO(text, newline=""), NAMES, "test.csv")


def clips(*lines):
    text = "\n".join(("id\tcls\tt_start\tt_end\tnarration", *lines)) + "\n"
    return read_charades_clips(io.StringIO(text, newline=""), NAMES, "train.tsv")


def test_class_names_by_their_codes():
    assert read_charades_classes(["c001 Folding a kite\n", "c000 Holding a kite\n", "\n", "c002 Flying\n"]) == NAMES


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["c000 A", "c002 B"], "without a gap"),
        (["c000 A", "c000 B"], "line 2"),
        (["c000"], "line 1"),
        (["class A"], "line 1"),
        ([], "0 codes"),
    ],
)
def test_other_class_lists_are_refused(lines, message):
    with pytest.raises(UserError, match=rf"^classes\.txt.*{message}"):
        read_charades_classes(lines, "classes.txt")


def test_the_official_table():
    found = videos('EGO1,A,"one, two",c001 11.90 21.20;c000 0.00 12.60;c001 3.0 4.0,24.83', "EGO2,B,three,,10.0")
    first, second = found.rows
    assert (first.video_id, first.labels, first.duration_s) == ("EGO1", (0, 1), 24.83)
    assert first.actions[0] == CharadesAction(1, (11.9, 21.2))
    assert len(first.actions) == 3
    assert (second.labels, second.actions) == ((), ()), "a video without actions stays: it counts in the ranking"
    assert found.problems == []


def test_a_span_that_cannot_be_is_listed_and_its_label_stays():
    found = videos("EGO1,A,s,c002 5.0 4.0;c001 8.0 12.0;c000 30.0 31.0,10.0")
    assert found.rows[0].labels == (0, 1, 2)
    assert found.rows[0].actions == (CharadesAction(1, (8.0, 10.0)),)
    assert [problem.message.split(":")[0] for problem in found.problems] == [
        "Flying",
        "Folding a kite",
        "Holding a kite",
    ]
    assert {(problem.where, problem.video_id) for problem in found.problems} == {("test.csv, line 2", "EGO1")}


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("E,A,s,c003 0 1,9", "line 2, actions"),
        ("E,A,s,c001 0,9", "line 2, actions"),
        ("E,A,s,c001 a 1,9", "line 2, actions"),
        ("E,A,s,c001 0 1,long", "line 2, length"),
        (",A,s,,9", "line 2, id"),
        ("E,A,s,,9\nE,A,s,,9", "line 3"),
    ],
)
def test_another_cell_is_refused(line, place):
    with pytest.raises(UserError, match=rf"^test\.csv, {place}"):
        videos(line)


def test_clips_to_train_on():
    found = clips("EGO1\tc002\t1.5\t3.0\tFlying", "EGO1\t1\t0\t2\tFolding a kite", "EGO2\tc000\t4\t4\tHolding a kite")
    assert found.rows == [
        CharadesClip("EGO1", 2, (1.5, 3.0), "Flying"),
        CharadesClip("EGO1", 1, (0.0, 2.0), "Folding a kite"),
    ]
    assert [(problem.where, problem.video_id) for problem in found.problems] == [("train.tsv, line 4", "EGO2")]


def test_a_clip_of_an_unknown_class_is_refused():
    with pytest.raises(UserError, match=r"^train\.tsv, line 2, cls: got 'c007'"):
        clips("EGO1\tc007\t1.5\t3.0\tFlying")
