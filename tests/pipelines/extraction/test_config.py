"""The extraction's configuration refuses what cannot work."""

import pytest

from hvlm.errors import UserError
from infra.config_io import build_config
from pipelines.extraction.config import ExtractConfig

GOOD = {
    "store_uri": "s",
    "source": {"uri": "v"},
    "encoders": {"clip": {"kind": "clip", "model": "m", "pretrained": "random"}},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoders": {}}, "at least one"),
        ({"encoders": {"Clip 1": GOOD["encoders"]["clip"]}}, "lower-case"),  # type: ignore[index]
        ({"encoders": {"clip": {"kind": "vit"}}}, "'clip', 'c3d'"),
        ({"encoders": {"clip": {"kind": "clip", "modle": "m"}}}, "modle is not a known key"),
        ({"decode": {"segment_s": 0.2}}, "segment_s"),
        ({"decode": {"backend": "ffmpeg"}}, "'decord', 'pyav' or 'torchcodec'"),
        ({"max_failed_fraction": 2}, "fraction from 0 to 1"),
        ({"resources": {"segments_per_batch": 0}}, "segments_per_batch"),
        ({"commit_interval_s": "soon"}, "valid number"),
    ],
)
def test_bad_values_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_config(ExtractConfig, {**GOOD, **change}, origin="test")


CLIP_OF_SPANS = {"kind": "clip", "model": "m", "pretrained": "random", "sampling": {"kind": "spans", "fps": 2.0}}
C3D_OF_SPANS = {"kind": "c3d", "weights": "random", "only_spans": True}


@pytest.mark.parametrize("encoder", [CLIP_OF_SPANS, C3D_OF_SPANS])
def test_spans_need_annotations_and_clips_apart(encoder: dict[str, object]) -> None:
    annotated = {**GOOD, "source": {"uri": "v", "annotations_uri": "a.json"}}
    other = GOOD["encoders"]["clip"]  # type: ignore[index]
    found = build_config(ExtractConfig, {**annotated, "encoders": {"x": encoder, "y": other}}, origin="test")
    assert found.samples_spans and not build_config(ExtractConfig, annotated, origin="test").samples_spans
    with pytest.raises(UserError, match=r"source.annotations_uri: got none; .* an encoder samples its spans"):
        build_config(ExtractConfig, {**GOOD, "encoders": {"x": encoder}}, origin="test")
    if encoder is C3D_OF_SPANS:
        with pytest.raises(UserError, match=r"only_spans: got 8; expected at least 16: .* set stride_frames: 16"):
            build_config(ExtractConfig, {**annotated, "encoders": {"x": encoder | {"stride_frames": 8}}}, origin="test")


def test_the_good_one_loads() -> None:
    assert build_config(ExtractConfig, GOOD, origin="test").decode.segment_s == 60.0
