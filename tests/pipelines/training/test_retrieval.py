import numpy as np
import pytest

from pipelines.training.retrieval import retrieval_figures


def test_by_hand_with_equal_texts_and_a_row_without_text() -> None:
    video = np.eye(4, dtype=np.float32)
    text = video[[0, 2, 1, 3]]
    figures = retrieval_figures("dev/x", video, text, np.array([5, 7, 7, -1]))
    assert figures["dev/x/text_to_video/recall_at_1"] == 1.0  # text 1 finds video 2, whose text is equal
    figures = retrieval_figures("dev/x", video, text, np.array([5, 7, 8, -1]))
    assert figures["dev/x/text_to_video/recall_at_1"] == pytest.approx(1 / 3)
    assert set(figures) == {
        f"dev/x/{direction}/{name}"
        for direction in ("text_to_video", "video_to_text")
        for name in ("recall_at_1", "recall_at_5", "median_rank")
    }


def test_without_text_or_with_vectors_that_are_not_finite_there_is_nothing() -> None:
    rows = np.eye(2, dtype=np.float32)
    assert retrieval_figures("dev/x", rows, rows, np.array([-1, -1])) == {}
    assert retrieval_figures("dev/x", rows * np.nan, rows, np.array([0, 1])) == {}
