"""One sample: the features of one video by one encoder, `{key}.features.npy` + `{key}.json`.

Features are (T, D) float16, not normalised. Row i describes the video from `offset_s + i * stride_s` for `clip_s`
seconds; `timestamps_s[i]` is the time of the frame that was decoded for it. Of videos that were sampled by keyframes or
annotated spans only the time stamps say where a row lies; of spans, rows of the grid are left out (`has_gaps`).
"""

import io
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hvlm.data.activitynet import ROUNDING_S
from hvlm.data.tar import read_members

FEATURES_SUFFIX = ".features.npy"
META_SUFFIX = ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleMeta:
    """What `{key}.json` says.

    Args:
        num_rows: T in the json. dim: D in the json.
        encoder: name of the column (e.g. "clip"); fingerprint: sha256 of the extraction; extractor: the model in words.
        fps: frames per second that were sampled (None for imported features of unknown rate).
        stride_s, clip_s, offset_s: the time grid of the rows, in seconds.
        timestamps_s: time of the first frame of each row, in seconds from the first frame of the video.
        span_s: the part of the video that the sample covers.
        truncated: the file is damaged or cut: the features are of its decodable part, duration_s is that part's.
        annotations: `{"label", "segment": [start_s, end_s]}`, with "label_id" if the annotation file gives it.
        captions, summaries: `{"text", "segment"}`, with "verbs", "nouns" and "pass" if the annotation file gives them;
            summaries tell of parts. summary: the text of the whole video. columns: further columns of the source list.
    """

    video_id: str
    key: str
    split: str
    subset: str | None
    duration_s: float
    num_rows: int
    dim: int
    encoder: str
    fingerprint: str
    extractor: str
    fps: float | None
    stride_s: float
    clip_s: float
    offset_s: float
    timestamps_s: list[float]
    span_s: tuple[float, float]
    truncated: bool = False
    l2_normalised: bool = False
    annotations: list[dict[str, Any]] = field(default_factory=list)
    captions: list[dict[str, Any]] = field(default_factory=list)
    summaries: list[dict[str, Any]] = field(default_factory=list)
    summary: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def has_gaps(self) -> bool:
        """Whether two rows or more were left out: of a whole video less than one clip is missing at its end."""
        return self.num_rows * self.stride_s + self.clip_s <= self.duration_s

    @property
    def reach_s(self) -> float:
        """How far from its middle a row may stand for the video; infinity where none was left out."""
        return max(self.stride_s, self.clip_s) / 2 if self.has_gaps else math.inf


def meta_to_json(meta: SampleMeta) -> bytes:
    """Return the canonical json of a sample's metadata (sorted keys, UTF-8)."""
    values = {name: getattr(meta, name) for name in SampleMeta.__dataclass_fields__}
    values["T"], values["D"] = values.pop("num_rows"), values.pop("dim")
    if not meta.summaries:  # so that a sample without any has the bytes that it had before there were such
        del values["summaries"]
    values["timestamps_s"] = [round(float(time), 6) for time in meta.timestamps_s]
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def meta_from_json(data: bytes) -> SampleMeta:
    """Return the metadata that `meta_to_json` wrote.

    Raises:
        ValueError: not json, or keys missing or unknown.
    """
    values = json.loads(data)
    try:
        values["num_rows"], values["dim"] = values.pop("T"), values.pop("D")
        values["span_s"] = tuple(values["span_s"])
        return SampleMeta(**values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a sample's json: {error}") from error


def encode_sample(features_TD: npt.NDArray[np.float16], meta: SampleMeta) -> list[tuple[str, bytes]]:
    """Return the sample's tar members in order.

    Args:
        features_TD: (T, D) float16, finite.
        meta: its `num_rows` and `dim` must be T and D.

    Raises:
        ValueError: wrong shape, dtype, number of time stamps, or a value that is not finite.
    """
    if features_TD.dtype != np.float16 or features_TD.shape != (meta.num_rows, meta.dim):
        found = f"{features_TD.dtype} {features_TD.shape}"
        raise ValueError(f"features of '{meta.video_id}' are {found}, not float16 {(meta.num_rows, meta.dim)}")
    if len(meta.timestamps_s) != meta.num_rows:
        raise ValueError(f"'{meta.video_id}' has {len(meta.timestamps_s)} time stamps for {meta.num_rows} rows")
    if not np.isfinite(features_TD).all():
        raise ValueError(f"features of '{meta.video_id}' hold NaN or infinity")
    return [(meta.key + FEATURES_SUFFIX, array_to_npy(features_TD)), (meta.key + META_SUFFIX, meta_to_json(meta))]


def decode_sample(data: bytes) -> tuple[npt.NDArray[np.float16], SampleMeta]:
    """Return `(features (T, D) float16, meta)` of the byte range of one sample in a shard.

    Raises:
        ValueError: the range does not hold exactly one sample.
    """
    members = read_members(data)
    metas = [name for name in members if name.endswith(META_SUFFIX)]
    if len(metas) != 1 or len(members) != 2:
        raise ValueError(f"expected one sample's two members, found {sorted(members)}")
    meta = meta_from_json(members[metas[0]])
    content = members.get(meta.key + FEATURES_SUFFIX)
    if content is None or metas[0] != meta.key + META_SUFFIX:
        raise ValueError(f"the members {sorted(members)} are not named after the key '{meta.key}'")
    return array_from_npy(content), meta


def array_to_npy(array: npt.NDArray[Any]) -> bytes:
    """Return an array as `.npy` bytes."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def array_from_npy(data: bytes) -> npt.NDArray[Any]:
    """Return the array in `.npy` bytes; pickled content is refused."""
    array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def fit_segments(items: list[dict[str, Any]], duration_s: float) -> list[dict[str, Any]]:
    """Return annotations, captions or summaries whose `segment` lies inside the video.

    An end beyond the duration is cut to it (annotation files round up); an item that starts beyond it is left out; a
    null segment means the whole video.
    """
    fitted = []
    for item in items:
        start_s, end_s = item.get("segment") or (0.0, duration_s)
        end_s = min(float(end_s), duration_s)
        if math.isfinite(start_s) and 0 <= start_s < end_s:
            fitted.append(item | {"segment": [float(start_s), end_s]})
    return fitted


def misfits(items: list[dict[str, Any]], duration_s: float) -> list[str]:
    """Return what `fit_segments` cuts or leaves out, in words; a cut of a rounding is none."""
    found = []
    for item in items:
        start_s, end_s = item.get("segment") or (0.0, duration_s)
        if end_s > duration_s + ROUNDING_S or start_s >= duration_s:
            done = "left out" if start_s >= duration_s else "cut"
            found.append(f"segment [{start_s:g}, {end_s:g}] of a video of {duration_s:.2f} s: {done}")
    return found
