"""EPIC-MIR by hand: perfect and wrong orders, lines of the matrix, missing videos, a submission."""

import pickle

import numpy as np

from hvlm.data.readers.epic import EpicClip, EpicSentence
from pipelines.evaluation.hiervl.epic_group import EpicGroup
from pipelines.evaluation.hiervl.places import Place
from tests.pipelines.evaluation.hiervl.planted_hiervl import split_vectors, video

EYE = np.eye(3)
CLIPS = [EpicClip(line, f"n{line}", name, (0.0, 2.0), f"text {line}", line, ()) for line, name in enumerate("abx")]
SENTENCES = [EpicSentence(f"n{line}", f"text {line}") for line in range(3)]
TEXTS = {f"text {i}": EYE[i] for i in range(3)}


def _epic(vectors, clips=CLIPS, relevancy=EYE):
    videos = [video(name, {Place(name, 0.0, 2.0, 4): vector}) for name, vector in vectors.items()]
    group = EpicGroup(clips, SENTENCES, relevancy, 4, seed=0)
    return group.measure(split_vectors(videos, TEXTS, 3))


def test_epic_counts_the_lines_of_stored_clips():
    outcome = _epic({"a": EYE[0], "b": EYE[1]})
    found = {row.name: row for row in outcome.rows}
    both = found["val/clip/epic_mir/video_to_text/mean_ap"]
    assert (both.ours, both.raw, both.count) == (1.0, 1.0, 2)
    assert found["val/clip/epic_mir/mean_ap"].headline and not both.headline
    assert 0 < found["val/clip/epic_mir/mean_ap"].chance < 1
    assert outcome.missing == {"x": 1}
    submission = pickle.loads(outcome.predictions["submission_epic_mir_val.pkl"])
    assert submission["vis_ids"] == ["n0", "n1"] and submission["txt_ids"] == ["n0", "n1", "n2"]
    np.testing.assert_allclose(submission["sim_mat"], EYE[:2], atol=1e-6)


def test_epic_with_a_line_left_out_reads_the_right_relevancy():
    """Line 1 of the file had a span that cannot be: b stands on line 2."""
    clips = [CLIPS[0], EpicClip(2, "n2", "b", (0.0, 2.0), "text 2", 2, ())]
    right = {row.name: row.ours for row in _epic({"a": EYE[0], "b": EYE[2]}, clips).rows}
    wrong = {row.name: row.ours for row in _epic({"a": EYE[0], "b": EYE[1]}, clips).rows}
    assert right["val/clip/epic_mir/video_to_text/mean_ap"] == 1.0
    assert wrong["val/clip/epic_mir/video_to_text/mean_ap"] < 1.0


def test_the_dual_softmax_is_named_as_another_task():
    rows = {row.name: row for row in _epic({"a": 3 * EYE[0], "b": EYE[1]}).rows}
    dual = rows["val/clip/epic_mir_dual_softmax/mean_ap"]
    assert "transductive" in dual.note and not dual.headline
    assert "transductive" not in rows["val/clip/epic_mir/mean_ap"].note


def test_epic_without_a_clip():
    assert "no clip of the file" in _epic({"z": EYE[0]}).absent[0].why
