"""The embedder: the same vectors in any company, raw by hand, and figures equal to those of training's validation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hvlm.encoders.config import LoraConfig
from hvlm.encoders.text import load_text_encoder
from pipelines.evaluation.hiervl.embedding import ASKED, EmbedSetup, HierVLEmbedder
from pipelines.evaluation.hiervl.places import Place
from pipelines.evaluation.hiervl.question_group import StoreQuestionGroup
from pipelines.evaluation.hiervl.vectors import SplitVectors
from pipelines.store.manifest import open_manifest
from pipelines.training.checkpoints import find_checkpoint
from pipelines.training.config import StreamConfig
from pipelines.training.hiervl.levels import Levels, read_video_levels
from pipelines.training.hiervl.samples import LevelReader
from pipelines.training.hiervl.validation import validate
from pipelines.training.stream import FeatureReader, SampleTable
from pipelines.training.text import TextTable, read_metas
from tests.pipelines.evaluation.hiervl.planted_hiervl import FRAMES, make_checkpoint
from tests.pipelines.evaluation.planted_store import CLIP, clip_column, planted_rows, source_of


def _embedder(trained, rows_per_forward=4096):
    setup = EmbedSetup(
        checkpoint_uri=find_checkpoint(trained[1]).uri,
        source=source_of(trained[0]),
        rows_per_forward=rows_per_forward,
        device="cpu",
        threads=1,
    )
    return HierVLEmbedder(setup)


def _rows(trained, split="dev"):
    frame = open_manifest(trained[0], ["clip", "c3d"]).frame
    return [row for row in frame.sort("key").iter_rows(named=True) if row["split"] == split]


def test_every_place_has_the_same_vectors_in_any_company(trained):
    row = _rows(trained)[0]
    asked = [
        Place(row["video_id"], 2.0, 9.0, 4),
        Place(row["video_id"], 5.0, 25.0),
        Place(row["video_id"], 50.0, 60.0, 4),
    ]
    together = _embedder(trained).embed([row | {ASKED: asked}])[0]
    alone = _embedder(trained, rows_per_forward=1).embed([row | {ASKED: asked}])[0]
    # two captions' clips, the whole video, and what was asked for but the place behind the end
    assert len(together.vectors["ours"]) == 5 and asked[2] not in together.vectors["raw"]
    for kind in ("ours", "raw"):
        for place, vector in together.vectors[kind].items():
            np.testing.assert_allclose(vector, alone.vectors[kind][place], atol=1e-5)
    np.testing.assert_allclose(together.shuffled_PE, alone.shuffled_PE, atol=1e-5)
    assert together.shuffled_PE.shape == (20, 8)


def test_raw_is_the_mean_of_the_middle_rows(trained):
    row = _rows(trained)[0]
    place = Place(row["video_id"], 0.0, 4.0, 2)  # rows 0 to 3 in two bins: their middles are 0 and 2
    found = _embedder(trained).embed([row | {ASKED: [place]}])[0].vectors["raw"][place]
    rows = planted_rows(int(row["video_id"][-3:]), "c3d", 6)[[0, 2]].astype(np.float32)
    expected = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(found[-6:], expected, atol=1e-3)


def test_summary_and_shuffle_mcq_are_those_of_validation(trained):
    """One way to ask: on the dev split both give the same figures, to the last question."""
    embedder, rows = _embedder(trained), _rows(trained)
    videos = embedder.embed(rows)
    texts = sorted({text for video in videos for text in (video.summary, *(c["text"] for c in video.captions))})
    encoded = embedder.encode_texts(texts, CLIP)
    of_kind = {kind: dict(zip(texts, values, strict=True)) for kind, values in encoded.items()}
    outcome = StoreQuestionGroup(FRAMES).measure(SplitVectors("dev", videos, of_kind, slice(0, clip_column().dim)))
    found = {row.name: row.ours for row in outcome.rows}
    expected = validate(embedder._model, _reader(trained, texts), torch.device("cpu"), "fp32")
    for name in ("summary_mcq/accuracy", "shuffle_mcq/accuracy", "shuffle_mcq/accuracy_wrong_text"):
        assert found[f"dev/video/{name}"] == pytest.approx(expected[f"dev/video/{name}"]), name
    assert expected["dev/video/shuffle_mcq/accuracy"] not in (0.0, 0.2, 1.0)


def test_a_text_tower_that_was_trained_encodes_the_texts_of_ours_and_not_of_raw(trained, tmp_path):
    make_checkpoint(trained[0], tmp_path, LoraConfig(r=2))
    embedder, texts = _embedder((trained[0], str(tmp_path))), ["a", "something does spin", "first spin, then bounce"]
    encoded = embedder.encode_texts(texts, CLIP)
    alone = embedder.encode_texts(texts, replace(CLIP, batch_size=1))
    encoder = load_text_encoder(CLIP, "cpu")
    np.testing.assert_array_equal(encoded["raw"], encoder.encode_text(texts))
    text_encoder = embedder._model.text_encoder
    with torch.no_grad():
        expected = text_encoder(torch.from_numpy(encoder.tokenizer.tokens(texts))).numpy()
        frozen = text_encoder.head(torch.from_numpy(encoded["raw"])).numpy()
    np.testing.assert_allclose(encoded["ours"], expected, atol=1e-5)
    np.testing.assert_allclose(alone["ours"], expected, atol=1e-5)
    assert np.abs(expected - frozen).max(axis=1).min() > 1e-2


def _reader(trained, texts):
    manifest = open_manifest(trained[0], ["clip", "c3d"])
    read = {meta.key: read_video_levels(meta) for meta in read_metas(manifest, ("dev",))}
    number = {text: i for i, text in enumerate(texts)}
    table = TextTable(
        features_NX=load_text_encoder(CLIP, "cpu").encode_text(texts),
        group_N=np.arange(len(texts)),
        texts_of={key: np.array([number[text] for text in told]) for key, (_, told) in read.items()},
    )
    levels = Levels({key: video for key, (video, _) in read.items()})
    sampling = _embedder(trained)._sampling
    features = FeatureReader(SampleTable.of(manifest, "dev"), StreamConfig())
    return LevelReader(features, levels, table, sampling)


def test_a_segment_is_windowed_as_in_training(trained):
    """The whole video's vector is that of training's parent sample: the same windows, the same frames of each."""
    embedder, rows = _embedder(trained), _rows(trained)
    videos = embedder.embed(rows)
    reader = _reader(trained, sorted({text for v in videos for text in (v.summary, *(c["text"] for c in v.captions))}))
    with torch.inference_mode():
        output = embedder._model(reader.parent(reader.parent_samples(), None).batch, "parent")
    of_key = dict(zip((reader.keys[sample.video] for sample in reader.parent_samples()), output.video_VE, strict=True))
    assert len(of_key) == len(videos) > 1
    for video in videos:
        expected = of_key[video.key].numpy()
        np.testing.assert_allclose(video.vectors["ours"][video.segment()], expected, atol=1e-5)
