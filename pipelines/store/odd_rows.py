"""Counts the feature rows of a shard that look wrong: a dead encoder or mixed-up videos show here, video by video not.

- constant: all values of the row are equal;
- repeated: equal, bit for bit, to another row of the same video (a still picture does that; ten videos do not, unless a
  decoder gives one frame again and again);
- shared: equal to a row of a video with another content (two black frames do that; whole videos do not).
NaN, infinity and rows of zeros are no matter of counting: the encode stage refuses them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hvlm.errors import JobError

FEWEST_ROWS = 100  # a shard of fewer rows is not judged
FEWEST_VIDEOS = 10  # and one of fewer samples not by its repeated rows: a single still video must not stop a publish


class OddRowsError(JobError):
    """Too many rows of a shard are constant, shared or repeated: nothing of this publish is committed."""


@dataclass(slots=True)
class OddRows:
    """The counts of one shard."""

    num_rows: int = 0
    num_constant: int = 0
    num_repeated: int = 0
    num_shared: int = 0
    _contents: dict[int, str] = field(default_factory=dict)
    """hash of a row -> content hash of the first video that had it"""

    def add(self, features_TD: npt.NDArray[np.float16], content_hash: str) -> None:
        """Count the rows of one sample, float16 (T, D)."""
        hashes = [hash(row.tobytes()) for row in features_TD]
        here = set(hashes)
        self.num_rows += len(hashes)
        self.num_constant += int((features_TD == features_TD[:, :1]).all(axis=1).sum())
        self.num_repeated += len(hashes) - len(here)
        self.num_shared += sum(self._contents.get(value, content_hash) != content_hash for value in hashes)
        for value in here:
            self._contents.setdefault(value, content_hash)

    def counts(self) -> dict[str, int]:
        """Return the counts by name."""
        return {"num_constant": self.num_constant, "num_repeated": self.num_repeated, "num_shared": self.num_shared}


def check_odd_rows(rows: Iterable[Mapping[str, Any]], max_fraction: float) -> None:
    """Refuse shards of which more than `max_fraction` of the rows are constant, shared or repeated.

    Args:
        rows: of `write_shard`.

    Raises:
        OddRowsError: naming the shard and its counts.
    """
    shards: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        shards.setdefault(row["shard"], []).append(row)
    for shard, samples in shards.items():
        num_rows = sum(sample["num_rows"] for sample in samples)
        constant, shared, repeated = (samples[0][f"num_{kind}"] for kind in ("constant", "shared", "repeated"))
        judged = max(constant, shared, repeated if len(samples) >= FEWEST_VIDEOS else 0)
        if num_rows >= FEWEST_ROWS and judged > max_fraction * num_rows:
            discard = f"store_uri=… action=discard encoder={shard.split('/')[1]}"
            raise OddRowsError(
                f"of the {num_rows} feature rows of {shard}, {constant} are constant, {shared} are equal to a row "
                f"of another video and {repeated} to one of the same, more than "
                f"publish.max_odd_fraction={max_fraction:g}; nothing is published. If the encoder is broken "
                "(weights, precision), correct it; if it only worked wrongly once (a faulty device), "
                f"`python -m jobs.quarantine --config jobs/configs/quarantine.yaml {discard}` discards what it staged, "
                "and the next extraction makes it anew; if the videos are still or much alike, raise the limit"
            )
