"""Splits by source video: a video's split depends on its id, its official subset and the config, on nothing else."""

import hashlib
from dataclasses import dataclass

from hvlm.config import Config, require
from hvlm.errors import UserError

SPLITS = ("train", "dev", "val", "test")
_SUBSETS = {
    "training": "train",
    "train": "train",
    "dev": "dev",
    "validation": "val",
    "val": "val",
    "testing": "test",
    "test": "test",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig(Config):
    """How videos are spread over the splits.

    Args:
        val_fraction: share of the videos without a subset that goes to val.
        dev_fraction: share that is carved out of the training videos for choosing models (so that val stays a report).
        seed: another seed gives another assignment.
    """

    val_fraction: float = 0.2
    dev_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("val_fraction", "dev_fraction"):
            value = getattr(self, name)
            require(
                0 <= value < 1, what=f"splits.{name}", got=value, expected="at least 0 and below 1", do="set e.g. 0.1"
            )
        total = self.val_fraction + self.dev_fraction
        require(
            total < 1,
            what="splits.val_fraction + dev_fraction",
            got=total,
            expected="below 1",
            do="leave something to train on",
        )


def order_hash(video_id: str) -> str:
    """Return the hex digest by which samples are ordered in a generation: even over ids, the same everywhere."""
    return hashlib.sha256(video_id.encode("utf-8")).hexdigest()


def assign_split(video_id: str, subset: str | None, config: SplitConfig) -> str:
    """Return "train", "dev", "val" or "test".

    A known subset decides (training gives its dev part up); without one the id's hash does.

    Raises:
        UserError: a subset with an unknown name.
    """
    digest = hashlib.sha256(f"split:{config.seed}:{video_id}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if subset is None:
        if share < config.val_fraction:
            return "val"
        return "dev" if share < config.val_fraction + config.dev_fraction else "train"
    known = _SUBSETS.get(subset.strip().lower())
    if known is None:
        raise UserError(
            what=f"subset of video '{video_id}'",
            got=subset,
            expected=f"one of {', '.join(sorted(_SUBSETS))}",
            do="correct it in the annotations or the list",
        )
    return "dev" if known == "train" and share < config.dev_fraction else known
