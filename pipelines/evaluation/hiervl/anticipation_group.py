"""Long-term anticipation (Ego4D): the next verbs and nouns from the clips of the last actions, by a small head.

The head reads frozen vectors of the clips, side by side, and is fitted on the training table's videos of train. Verbs
and nouns have heads of their own; a sequence of actions joins one of each.

Shapes: N samples, D width, Z future actions, L labels, K sequences.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvlm.data.readers.anticipation import AnticipationSample
from hvlm.data.readers.rows import in_store
from hvlm.metrics.anticipation_head import AnticipationHeadConfig, fit_anticipation_head, sample_sequences
from hvlm.metrics.classification import unit_rows
from hvlm.metrics.edit_distance import evaluate_anticipation
from pipelines.evaluation.hiervl.groups import Outcome
from pipelines.evaluation.hiervl.places import Place
from pipelines.evaluation.hiervl.vectors import SplitVectors
from pipelines.evaluation.metric_table import KINDS, OURS, Absent, rows_of
from pipelines.evaluation.outputs import to_json
from pipelines.evaluation.parts import LEARNT_ON

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnticipationGroup:
    """ED@Z of sequences that the head samples.

    Args:
        train, test: samples of the two tables.
        head: how it is fitted. num_sequences: K.
        num_frames: of a clip. seed: of the fit, of the sequences and of chance.
    """

    train: Sequence[AnticipationSample]
    test: Sequence[AnticipationSample]
    head: AnticipationHeadConfig
    num_sequences: int
    num_frames: int
    seed: int
    name: str = "anticipation"
    title: str = "Long-term anticipation"
    beside_text: bool = False

    def places(self) -> Iterable[Place]:
        """Return the clips that are seen."""
        return (place for sample in (*self.train, *self.test) for place in self._places(sample))

    def texts(self) -> Iterable[str]:
        """Return nothing."""
        return ()

    def measure(self, vectors: SplitVectors) -> Outcome:
        """Return ED@Z of verbs, nouns and actions, lower is better; nothing on the splits that training read."""
        metric = f"{vectors.split}/clip/{self.name}/*"
        if vectors.split in LEARNT_ON:
            return Outcome(absent=[Absent(metric, LEARNT_ON[vectors.split])])
        learnt = {video.video_id for video in vectors.videos if video.split == "train"}
        stored = in_store(self.train, learnt), in_store(self.test, vectors.reported_ids)
        train, test = ([each for each in found.rows if self._known(vectors, each)] for found in stored)
        missing = {**stored[0].absent, **stored[1].absent}
        if not train or not test:
            why = f"{len(train)} samples of the training table in train, {len(test)} of the other in '{vectors.split}'"
            return Outcome(absent=[Absent(metric, why)], missing=missing)
        predicted = self._predicted(vectors, train, test)
        truth = {kind: _labels(test, kind) for kind in ("verb", "noun")}
        distance = f"edit_distance_at_{truth['verb'].shape[1]}"
        values: dict[str, dict[str, float]] = {}
        for column, found in predicted.items():
            result = evaluate_anticipation(found["verb"], found["noun"], truth["verb"], truth["noun"])
            values[column] = {f"{distance}/{name}": getattr(result, name) for name in ("verb", "noun", "action")}
        note = f"best of {self.num_sequences} sequences, Levenshtein; fitted on {len(train)} samples; "
        rows = rows_of(
            values,
            f"{vectors.split}/clip/{self.name}",
            count=len(test),
            unit="samples",
            better="lower",
            headline=True,
            note=note + "floor draws from how often each label follows in train, chance from all labels alike",
        )
        submission = {
            sample.name: {kind: predicted[OURS][kind][i].tolist() for kind in truth} for i, sample in enumerate(test)
        }
        file = f"predictions_{self.name}_{vectors.split}.json"
        return Outcome(rows=rows, missing=missing, predictions={file: to_json(submission)})

    def _predicted(
        self, vectors: SplitVectors, train: Sequence[AnticipationSample], test: Sequence[AnticipationSample]
    ) -> dict[str, dict[str, Labels]]:
        """Sequences (N, K, Z) of each column of the table, by kind of label."""
        probability: dict[str, dict[str, Floats]] = {column: {} for column in (*KINDS, "floor", "chance")}
        for label in ("verb", "noun"):
            target_NZ = _labels(train, label)
            num_labels = 1 + max(int(target_NZ.max()), int(_labels(test, label).max()))
            for kind in KINDS:
                x_train, x_test = (self._features(vectors, kind, samples) for samples in (train, test))
                head = fit_anticipation_head(x_train, target_NZ, num_labels, self.head, self.seed)
                probability[kind][label] = head.probabilities(x_test)
            share_ZL = np.stack([np.bincount(of_place, minlength=num_labels) for of_place in target_NZ.T]) / len(train)
            probability["floor"][label] = np.broadcast_to(share_ZL, (len(test), *share_ZL.shape))
            probability["chance"][label] = np.full((len(test), *share_ZL.shape), 1 / num_labels)
        # A seed of its own for each kind of label, the same for all columns.
        return {
            column: {
                label: sample_sequences(values, self.num_sequences, self.seed + place)
                for place, (label, values) in enumerate(of_column.items())
            }
            for column, of_column in probability.items()
        }

    def _features(self, vectors: SplitVectors, kind: str, samples: Sequence[AnticipationSample]) -> Floats:
        clips = [place for sample in samples for place in self._places(sample)]
        return unit_rows(vectors.features(kind, clips)).reshape(len(samples), -1)

    def _places(self, sample: AnticipationSample) -> list[Place]:
        return [Place(action.video_id, *action.span_s, self.num_frames) for action in sample.seen]

    def _known(self, vectors: SplitVectors, sample: AnticipationSample) -> bool:
        return all(map(vectors.has, self._places(sample)))


def _labels(samples: Sequence[AnticipationSample], kind: str) -> Labels:
    return np.array([[getattr(action, kind) for action in sample.future] for sample in samples], dtype=np.int64)
