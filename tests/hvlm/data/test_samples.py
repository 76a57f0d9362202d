import dataclasses
import json

import numpy as np
import pytest

from hvlm.data.samples import SampleMeta, decode_sample, encode_sample, fit_segments, meta_from_json, misfits
from tests.hvlm.data.test_tar import write

META = SampleMeta(
    video_id="a b",
    key="x--a_20b",
    split="train",
    subset="training",
    duration_s=4.5,
    num_rows=3,
    dim=2,
    encoder="clip",
    fingerprint="f" * 64,
    extractor="clip tiny",
    fps=1.0,
    stride_s=1.0,
    clip_s=1.0,
    offset_s=0.0,
    timestamps_s=[0.0, 1.001, 2.0],
    span_s=(0.0, 4.5),
    annotations=[{"label": "Rafting", "segment": [0.5, 2.0]}],
    captions=[{"text": "héllo", "segment": [0.0, 1.0]}],
    summary="all of it",
    columns={"camera": 7},
)
FEATURES = np.arange(6, dtype=np.float16).reshape(3, 2)


@pytest.mark.parametrize(
    ("num_rows", "stride_s", "clip_s", "duration_s", "gaps"),
    [
        (5, 1.0, 1.0, 4.5, False),  # the whole grid
        (7, 0.64, 0.64, 5.0, False),  # clips: less than one is missing at the end
        (1, 0.64, 0.64, 0.1, False),
        (3, 5 / 3, 5 / 3, 5.0, False),  # keyframes: the mean distance
        (4, 1.0, 1.0, 4.5, False),  # one row is missing
        (3, 1.0, 1.0, 4.5, True),
        (2, 0.64, 0.64, 5.0, True),
    ],
)
def test_gaps_are_seen_by_what_the_rows_cover(
    num_rows: int, stride_s: float, clip_s: float, duration_s: float, gaps: bool
):
    values = {"num_rows": num_rows, "stride_s": stride_s, "clip_s": clip_s, "duration_s": duration_s}
    meta = dataclasses.replace(META, **values)
    assert meta.has_gaps is gaps and meta.reach_s == (stride_s / 2 if gaps else np.inf)


def test_round_trip():
    data, ranges = write(encode_sample(FEATURES, META))
    features, meta = decode_sample(data[: ranges[-1][0] + ranges[-1][1]])
    assert features.dtype == np.float16 and (features == FEATURES).all()
    assert meta == META


def test_summaries_of_parts_are_carried_and_a_sample_without_any_has_the_bytes_of_before_there_were_such():
    part = {"text": "the start", "segment": [0.0, 2.0], "pass": "one"}
    (_, _), (_, data) = encode_sample(FEATURES, dataclasses.replace(META, summaries=[part]))
    assert json.loads(data)["summaries"] == [part] and meta_from_json(data).summaries == [part]
    (_, _), (_, data) = encode_sample(FEATURES, META)
    assert "summaries" not in json.loads(data) and meta_from_json(data).summaries == []


def test_members_are_named_for_webdataset_and_the_json_says_what_the_spec_asks():
    members = dict(encode_sample(FEATURES, META))
    assert list(members) == ["x--a_20b.features.npy", "x--a_20b.json"]
    values = json.loads(members["x--a_20b.json"])
    assert (values["T"], values["D"], values["l2_normalised"], values["subset"]) == (3, 2, False, "training")


@pytest.mark.parametrize(
    ("features", "meta"),
    [
        (FEATURES.astype(np.float32), META),
        (FEATURES[:2], META),
        (FEATURES * np.float16(np.nan), META),
        (FEATURES, dataclasses.replace(META, timestamps_s=[0.0])),
    ],
    ids=["dtype", "rows", "nan", "times"],
)
def test_wrong_samples_are_refused(features, meta):
    with pytest.raises(ValueError):
        encode_sample(features, meta)


def test_a_range_of_two_samples_or_of_mixed_names_is_refused():
    members = encode_sample(FEATURES, META)
    other = encode_sample(FEATURES, dataclasses.replace(META, key="other"))
    for wrong in (members + other, [members[0], other[1]], members[:1]):
        with pytest.raises(ValueError):
            decode_sample(write(wrong)[0])


def test_segments_are_fitted_to_the_video():
    items = [
        {"text": "inside", "segment": [1, 2]},
        {"text": "over the end", "segment": [3.0, 9.0]},
        {"text": "beyond", "segment": [5.0, 6.0]},
        {"text": "whole", "segment": None},
    ]
    fitted = fit_segments(items, 4.0)
    assert [(item["text"], item["segment"]) for item in fitted] == [
        ("inside", [1.0, 2.0]),
        ("over the end", [3.0, 4.0]),
        ("whole", [0.0, 4.0]),
    ]
    rounded = {"text": "rounded", "segment": [1.0, 4.01]}
    assert misfits([*items, rounded], 4.0) == [
        "segment [3, 9] of a video of 4.00 s: cut",
        "segment [5, 6] of a video of 4.00 s: left out",
    ]
