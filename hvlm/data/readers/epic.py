"""EPIC-KITCHENS-100 multi-instance retrieval: the test clips, the distinct sentences, and how relevant each is to each.

The matrix has one line for each clip of `EPIC_100_retrieval_*.csv` and one column for each sentence of
`EPIC_100_retrieval_*_sentence.csv`, in the order of those files. A clip that is left out therefore leaves a hole:
`matrix[[clip.line for clip in clips]]` are the lines of the clips that remain.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvlm.data.activitynet import SpanS, fit_span
from hvlm.data.readers.matrix_pickle import load_arrays
from hvlm.data.readers.parsing import id_list, read_table, refuse, text_of, whole_number
from hvlm.data.readers.rows import Problem, Rows

CLIP_COLUMNS = (
    "narration_id",
    "video_id",
    "start_timestamp",
    "stop_timestamp",
    "narration",
    "verb_class",
    "all_noun_classes",
)
SENTENCE_COLUMNS = (("narration_id", "narration"), ("index", "sentence"))
_TIME = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d(?:\.\d+)?)")


class EpicClip(NamedTuple):
    """An action.

    Attributes:
        line: its place among the data lines of the file, from 0, which is its line in the relevancy matrix.
        narration_id: its name.
        video_id: the source video.
        span_s: half-open seconds.
        text: the narration.
        verb: verb class.
        nouns: noun classes.
    """

    line: int
    narration_id: str
    video_id: str
    span_s: SpanS
    text: str
    verb: int
    nouns: tuple[int, ...]


class EpicSentence(NamedTuple):
    """A distinct sentence and the narration that it was taken from; its place in the file is its matrix column."""

    narration_id: str
    text: str


def read_epic_clips(lines: Iterable[str], origin: str = "EPIC_100_retrieval_test.csv") -> Rows[EpicClip]:
    """Return the clips of a retrieval file; spans that cannot be are left out and listed.

    Raises:
        UserError: a column is missing, a cell is not what the format says, or a narration stands twice.
    """
    read: Rows[EpicClip] = Rows([], [])
    seen: set[str] = set()
    for line, (place, cells) in enumerate(read_table(lines, origin, CLIP_COLUMNS)):
        narration_id = text_of(cells["narration_id"], f"{place}, narration_id")
        if narration_id in seen:
            refuse(place, f"narration_id '{narration_id}' again", "each narration once")
        seen.add(narration_id)
        video_id = text_of(cells["video_id"], f"{place}, video_id")
        start_s, end_s = (seconds(cells[name], f"{place}, {name}") for name in ("start_timestamp", "stop_timestamp"))
        span_s, problem = fit_span(start_s, end_s, None)
        if span_s is None:
            read.problems.append(Problem(place, video_id, f"narration '{narration_id}': {problem}"))
            continue
        text = text_of(cells["narration"], f"{place}, narration")
        verb = whole_number(cells["verb_class"], f"{place}, verb_class")
        nouns = id_list(cells["all_noun_classes"], f"{place}, all_noun_classes")
        read.rows.append(EpicClip(line, narration_id, video_id, span_s, text, verb, nouns))
    return read


def read_epic_sentences(
    lines: Iterable[str], origin: str = "EPIC_100_retrieval_test_sentence.csv"
) -> list[EpicSentence]:
    """Return the sentences of a file with the columns `narration_id, narration` (`index, sentence` in older releases).

    Raises:
        UserError: neither pair of columns is there, or a cell is blank.
    """
    sentences = []
    for place, cells in read_table(lines, origin, ()):
        names = next((names for names in SENTENCE_COLUMNS if set(names) <= set(cells)), None)
        if names is None:
            refuse(f"{origin}, header", list(cells), "the columns narration_id and narration")
        sentences.append(EpicSentence(*(text_of(cells[name], f"{place}, {name}") for name in names)))
    return sentences


def read_relevancy(data: bytes, shape: tuple[int, int], origin: str = "relevancy.pkl") -> NDArray[np.float64]:
    """Return the relevancy matrix (clips, sentences), each entry in [0, 1].

    Args:
        data: the pickle file.
        shape: data lines of the clip file, lines of the sentence file.
        origin: names the file in errors.

    Raises:
        UserError: the pickle holds more than arrays and containers, or another shape, or a value outside [0, 1].
    """
    found = load_arrays(data, origin)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub":
        got = f"an array of {found.dtype}" if isinstance(found, np.ndarray) else type(found).__name__
        refuse(origin, got, "one numpy array of numbers")
    if found.shape != shape:
        refuse(origin, f"a matrix {found.shape}", f"{shape}: the lines of the clip file x those of the sentence file")
    matrix: NDArray[np.float64] = found.astype(np.float64)
    # NaN fails the comparison too.
    if not ((matrix >= 0) & (matrix <= 1)).all():
        refuse(origin, f"values from {matrix.min()} to {matrix.max()}", "every relevancy in [0, 1]")
    return matrix


def seconds(text: str, what: str) -> float:
    """Return the seconds of a time such as `00:08:01.47`.

    Raises:
        UserError: another form.
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        refuse(what, repr(text), "hours:minutes:seconds such as 00:08:01.47")
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
