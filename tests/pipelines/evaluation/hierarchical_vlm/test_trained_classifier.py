"""The checkpoint's own classifier: by hand, against the vocabulary of the split, and only ours."""

import numpy as np
import pytest

from pipelines.evaluation.hierarchical_vlm.trained_classifier import trained_classifier_rows
from pipelines.training.baselines.classifier import TrainedClassifier
from tests.pipelines.evaluation.made_records import record, segment


def _trained(start: str | None = None) -> TrainedClassifier:
    return TrainedClassifier(("spin", "absent", "blink"), np.eye(3, dtype=np.float32), np.zeros(3, np.float32), start)


def _record(key: str, label: str, *logits: float):
    return record(key, np.eye(4), annotations=[segment(label, 0, 2)], label_logits_C=np.array(logits, np.float32))


def test_figures_by_hand():
    """The best class of a is one that the split has not, b is wrong, c's label was never seen, d is right."""
    records = [
        _record("a", "spin", 1.0, 9.0, 0.0),
        _record("b", "blink", 3.0, 0.0, 2.0),
        _record("c", "new", 0.0, 0.0, -1.0),
        _record("d", "blink", 0.0, 0.0, 4.0),
    ]
    rows = {row.name: row for row in trained_classifier_rows(records, "val", _trained(), 0)}
    hit = rows["val/video/trained_classifier/labels/hit_at_1"]
    assert (hit.ours, hit.raw, hit.count) == (0.25, None, 4)
    assert 0.05 < hit.chance < 0.6
    # spin is second of four, blink first and second; of what was never seen all scores are equal
    expected = np.mean([1 / 2, 1.0, 1 / 4])
    assert rows["val/video/trained_classifier/labels/mean_ap"].ours == pytest.approx(expected)
    assert "trained from new weights" in hit.note
    tuned = trained_classifier_rows(records, "val", _trained("/runs/x"), 0)
    assert "fine-tuned from /runs/x on the labels of train" in tuned[0].note


def test_without_labels_there_is_nothing_to_say():
    assert trained_classifier_rows([record("a", np.eye(4))], "val", _trained(), 0) == []
