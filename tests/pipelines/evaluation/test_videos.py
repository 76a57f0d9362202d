"""What is read of a video: the model's rows, the raw ones beside them, and nothing where an encoder has a gap."""

import numpy as np

from pipelines.store.manifest import open_manifest
from tests.pipelines.evaluation.planted_store import read_only_spans, source_of


def _first(store_uri):
    return open_manifest(store_uri, ["clip", "c3d"]).frame.sort("key").row(0, named=True)


def test_raw_is_the_unit_features_of_both_encoders(planted):
    video = source_of(planted[0]).load(_first(planted[0]))
    half = video.clip.features_TD.shape[1]
    np.testing.assert_allclose(np.linalg.norm(video.raw.features_TI[:, :half], axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(video.raw.features_TI[:, half:], axis=1), 1, atol=1e-3)
    assert not np.allclose(np.linalg.norm(video.model_input.features_TI[:, :half], axis=1), 1, atol=1e-2)


def test_rows_stand_for_nothing_where_an_encoder_has_none(planted, monkeypatch):
    read_only_spans(monkeypatch, "c3d")
    video = source_of(planted[0]).load(_first(planted[0]))
    # Rows that touch one of the spans': 2 and 13 s, 15 and 27 s.
    assert video.raw.times_s.tolist() == [*range(2, 14), *range(15, 28)] == video.model_input.times_s.tolist()
