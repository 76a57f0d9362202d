"""Vectors are found by place and text; of raw, only the columns of the encoder with a text tower stand beside texts."""

import numpy as np
import pytest

from pipelines.evaluation.hiervl.places import Place
from pipelines.evaluation.hiervl.vectors import SplitVectors
from tests.pipelines.evaluation.hiervl.planted_hiervl import video

A, B = Place("a", 0.0, 1.0, 2), Place("b", 0.0, 1.0, 2)
VIDEOS = [
    video("a", {A: [2.0, 0.0]}, raw={A: [9.0, 0.0, 3.0]}),
    video("b", {B: [0.0, 5.0]}, raw={B: [9.0, 3.0, 0.0]}, split="train"),
]
TEXTS = {"ours": {"t": np.array([1.0, 1.0])}, "raw": {"t": np.array([0.0, 2.0])}}
VECTORS = SplitVectors("val", VIDEOS, TEXTS, slice(1, 3))


def test_lookup():
    assert VECTORS.reported == VIDEOS[:1] and VECTORS.reported_ids == {"a"}
    assert VECTORS.has(B) and not VECTORS.has(Place("a", 0.0, 2.0, 2)) and not VECTORS.has(Place("c", 0.0, 1.0))
    assert VECTORS.features("raw", [B, A]).tolist() == [[9, 3, 0], [9, 0, 3]]
    assert VECTORS.beside_text("raw", [B, A]).tolist() == [[3, 0], [0, 3]]


def test_cosines_by_hand():
    assert VECTORS.cosines("ours", ["t"], [A, B]).tolist() == [[pytest.approx(0.5**0.5)] * 2]
    assert VECTORS.cosines("raw", ["t"], [A, B]).tolist() == [[1.0, 0.0]]
