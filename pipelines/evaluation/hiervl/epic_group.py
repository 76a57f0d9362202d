"""EPIC-KITCHENS-100 multi-instance retrieval without training on it.

Shapes: V clips, S sentences.
"""

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvlm.data.readers.epic import EpicClip, EpicSentence
from hvlm.data.readers.rows import in_store
from hvlm.metrics.multi_instance_retrieval import MultiInstanceResult, dual_softmax, evaluate_multi_instance
from pipelines.evaluation.hiervl.groups import Outcome
from pipelines.evaluation.hiervl.places import Place
from pipelines.evaluation.hiervl.vectors import SplitVectors
from pipelines.evaluation.metric_table import KINDS, OURS, Absent, MetricRow, rows_of

Floats = NDArray[np.float64]
CHANCE_DRAWS = 5
_DUAL_SOFTMAX = "dual softmax looks at the whole test set at once (transductive): another task than without"


@dataclass(frozen=True, slots=True)
class EpicGroup:
    """EPIC-KITCHENS-100 multi-instance retrieval of clips and distinct sentences.

    Args:
        clips, sentences: of the files. relevancy_VS: a row per line of the clip file.
        num_frames: of a clip. seed: of chance.
    """

    clips: Sequence[EpicClip]
    sentences: Sequence[EpicSentence]
    relevancy_VS: Floats
    num_frames: int
    seed: int
    name: str = "epic_mir"
    title: str = "EPIC-KITCHENS-100 multi-instance retrieval"
    beside_text: bool = True

    def places(self) -> Iterable[Place]:
        """Return all clips."""
        return map(self._place, self.clips)

    def texts(self) -> Iterable[str]:
        """Return all sentences."""
        return (sentence.text for sentence in self.sentences)

    def measure(self, vectors: SplitVectors) -> Outcome:
        """Return mAP and nDCG, plain on cosines and with the dual softmax on dot products, and a submission."""
        stored = in_store(self.clips, vectors.reported_ids)
        kept = [clip for clip in stored.rows if vectors.has(self._place(clip))]
        prefix = f"{vectors.split}/clip/{self.name}"
        lost = len(stored.rows) - len(kept)
        absent = [Absent(f"{prefix}/*", f"{lost} clips have no row of features and are left out")] if lost else []
        if not kept:
            why = f"no clip of the file is in '{vectors.split}'"
            return Outcome(absent=[*absent, Absent(f"{prefix}/*", why)], missing=stored.absent)
        relevancy_VS = self.relevancy_VS[[clip.line for clip in kept]]
        places, sentences = [self._place(clip) for clip in kept], [sentence.text for sentence in self.sentences]
        cosine = {kind: vectors.cosines(kind, sentences, places).T for kind in KINDS}
        dots = {kind: _dot_products(vectors, kind, sentences, places) for kind in KINDS}
        plain = {kind: _values(evaluate_multi_instance(found, relevancy_VS)) for kind, found in cosine.items()}
        dual = {
            kind: _values(evaluate_multi_instance(dual_softmax(found), relevancy_VS)) for kind, found in dots.items()
        }
        chance = _mean_of(
            _values(evaluate_multi_instance(draw, relevancy_VS))
            for draw in random_scores(relevancy_VS.shape, self.seed)
        )
        note = f"{len(kept)} of {len(self.clips)} clips, {len(sentences)} sentences; chance is the mean of random draws"
        shared: dict[str, Any] = {"count": len(kept), "unit": "clips"}
        rows = _with_headlines(rows_of(plain | {"chance": chance}, prefix, note=note, **shared), ("mean_ap", "ndcg"))
        rows += rows_of(dual | {"chance": chance}, f"{prefix}_dual_softmax", note=f"{_DUAL_SOFTMAX}; {note}", **shared)
        submission = {f"submission_{self.name}_{vectors.split}.pkl": self._submission(kept, cosine[OURS])}
        return Outcome(rows=rows, absent=absent, missing=stored.absent, predictions=submission)

    def _place(self, clip: EpicClip) -> Place:
        return Place(clip.video_id, *clip.span_s, self.num_frames)

    def _submission(self, clips: Sequence[EpicClip], similarity_VS: Floats) -> bytes:
        """The challenge's pickle, without the levels of supervision (`sls_…`) that whoever submits has to state."""
        content = {
            "version": "0.1",
            "challenge": "multi_instance_retrieval",
            "vis_ids": [clip.narration_id for clip in clips],
            "txt_ids": [sentence.narration_id for sentence in self.sentences],
            "sim_mat": similarity_VS.astype(np.float32),
        }
        return pickle.dumps(content, protocol=4)


def _dot_products(vectors: SplitVectors, kind: str, sentences: Sequence[str], places: Sequence[Place]) -> Floats:
    video_VE, text_SE = vectors.beside_text(kind, places), vectors.text(kind, sentences)
    return np.asarray(video_VE.astype(np.float64) @ text_SE.astype(np.float64).T, dtype=np.float64)


def _values(result: MultiInstanceResult) -> dict[str, float]:
    values = {"mean_ap": result.mean_ap, "ndcg": result.ndcg}
    for direction in ("video_to_text", "text_to_video"):
        of_direction = getattr(result, direction)
        values |= {f"{direction}/mean_ap": of_direction.mean_ap, f"{direction}/ndcg": of_direction.ndcg}
    return values


def random_scores(shape: tuple[int, ...], seed: int) -> Iterable[Floats]:
    """Return scores that know nothing, several draws of them."""
    random = np.random.default_rng(seed)
    return (random.random(shape) for _ in range(CHANCE_DRAWS))


def _mean_of(draws: Iterable[Mapping[str, float]]) -> dict[str, float]:
    drawn = list(draws)
    return {name: float(np.mean([draw[name] for draw in drawn])) for name in drawn[0]}


def _with_headlines(rows: Sequence[MetricRow], names: Iterable[str]) -> list[MetricRow]:
    wanted = set(names)
    return [replace(row, headline=row.name.rsplit("/", 1)[1] in wanted and "_to_" not in row.name) for row in rows]
