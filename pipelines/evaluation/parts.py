"""The videos that a probe is fitted on, chosen on and reported on."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

# Without a dev split one training video in so many chooses the probes' penalty.
_DEV_SHARE = 5
# Why a probe's figures on these splits would say nothing, and what that means for the figures that need no probe.
LEARNT_ON = {
    "train": "probes are fitted on train, so figures on it would not be of held-out videos",
    "dev": "the probes' penalty is chosen on dev, so figures on it would not be of held-out videos",
}


class VideoFeatures(Protocol):
    """One kind of features of a video."""

    @property
    def video_D(self) -> NDArray[np.float32]:
        """The frozen video embedding that probes and k-NN read."""
        ...


class AnnotatedVideo(Protocol):
    """What is known of a video without any model."""

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """Labels with their segments."""
        ...

    @property
    def activity(self) -> str | None: ...


class LabelledVideo(AnnotatedVideo, Protocol):
    """What the classification of videos knows of one."""

    @property
    def key(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def kinds(self) -> Mapping[str, VideoFeatures]:
        """Ours and raw."""
        ...


V = TypeVar("V", bound=LabelledVideo)
V_co = TypeVar("V_co", bound=LabelledVideo, covariant=True)


@dataclass(frozen=True, slots=True)
class Parts(Generic[V_co]):
    """The videos a probe is fitted on, chosen on and reported on. `dev_note` says where dev came from."""

    train: Sequence[V_co]
    dev: Sequence[V_co]
    report: Sequence[V_co]
    split: str
    dev_note: str


def make_parts(records: Sequence[V], split: str) -> Parts[V]:
    """Return the videos that probes are fitted on, chosen on and reported on.

    Without dev videos, a fifth of train by a hash of the key takes their place and is left out of the fit.
    """
    train = [record for record in records if record.split == "train"]
    dev = [record for record in records if record.split == "dev"]
    note = f"{len(dev)} dev videos"
    if not dev and train:
        held_out = {record.key for record in train if _hash(record.key) % _DEV_SHARE == 0}
        dev = [record for record in train if record.key in held_out]
        train = [record for record in train if record.key not in held_out]
        note = f"{len(dev)} videos held out of train, as the store has no dev split"
    return Parts(train, dev, [record for record in records if record.split == split], split, note)


def probes_refused(parts: Parts[LabelledVideo]) -> str:
    """Return why no probe is reported on these videos; empty when probes are."""
    if parts.split in LEARNT_ON:
        return LEARNT_ON[parts.split]
    if parts.train and parts.dev:
        return ""
    return f"probes need train and dev videos; the store has {len(parts.train)} and {len(parts.dev)}"


def in_drawn_order(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return manifest rows in an order that their keys draw: the first ones are a fair sample of all."""
    return sorted(rows, key=lambda row: (_hash(str(row["key"])), str(row["key"])))


def _hash(key: str) -> int:
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16)
