"""How well the classifier of a supervised training says what a video's labels are: fine-tuned, where the training
started from another one.
"""

from collections.abc import Sequence

import numpy as np

from hvlm.metrics.classification import evaluate_classification
from pipelines.evaluation.classification_group import chance_figures, label_matrix, vocabulary
from pipelines.evaluation.hierarchical_vlm.records import VideoRecord
from pipelines.evaluation.metric_table import OURS, MetricRow, rows_of
from pipelines.training.baselines.classifier import TrainedClassifier


def trained_classifier_rows(
    records: Sequence[VideoRecord], split: str, trained: TrainedClassifier, seed: int
) -> list[MetricRow]:
    """Return mAP and hits on the labels of one split, ours alone: raw features have no such training.

    Args:
        records: videos with the classifier's logits. split: its name.
        trained: names of its classes. A label that it never saw is never found.
        seed: of the chance scores.
    """
    seen = vocabulary(records)
    if not seen:
        return []
    names = sorted({*seen, *trained.classes})
    scores_NC = np.full((len(records), len(names)), -np.inf)
    scores_NC[:, [names.index(name) for name in trained.classes]] = [record.label_logits_C for record in records]
    truth_NC = label_matrix(records, names)
    found = evaluate_classification(scores_NC, truth_NC)
    how = f"fine-tuned from {trained.start}" if trained.start else "trained from new weights"
    return rows_of(
        {
            OURS: {"mean_ap": found.mean_ap, "hit_at_1": found.hit_at_1, "hit_at_3": found.hit_at_3},
            "chance": chance_figures(truth_NC, seed),
        },
        f"{split}/video/trained_classifier/labels",
        count=found.num_videos,
        note=f"the checkpoint's own classifier, {how} on the labels of train",
    )
