from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvlm.data.samples import SampleMeta
from hvlm.encoders.text import load_tokenizer
from hvlm.errors import UserError
from pipelines.store.manifest import Manifest, open_manifest
from pipelines.store.text_features import TextFeatures, add_text_features
from pipelines.training.config import ImportedTextConfig, TextConfig
from pipelines.training.text import make_text_table, read_metas, read_text_table, text_encoder_of, texts_of_video
from tests.pipelines.training.world import CLIP, DIMS, encode_text, make_store, silent

CONFIG = TextConfig(encoder=CLIP)
Texts = dict[str, list[tuple[str, str]]]


def texts_of(metas: Sequence[SampleMeta], templates: tuple[str, ...] = CONFIG.templates) -> Texts:
    return {each.key: texts_of_video(each, templates) for each in metas}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of its own: text features stay in it, and other tests must not find these."""
    return make_store(tmp_path_factory.mktemp("text") / "store")


def meta(**values: object) -> SampleMeta:
    base = SampleMeta(
        video_id="a",
        key="a",
        split="train",
        subset=None,
        duration_s=1.0,
        num_rows=1,
        dim=1,
        encoder="clip",
        fingerprint="",
        extractor="",
        fps=1.0,
        stride_s=1.0,
        clip_s=1.0,
        offset_s=0.0,
        timestamps_s=[0.0],
        span_s=(0.0, 1.0),
    )
    return replace(base, **values)  # type: ignore[arg-type]


def test_a_summary_wins_over_captions_over_labels() -> None:
    captions = [
        {"text": "one", "segment": [0, 1]},
        {"text": "two", "segment": [0, 1]},
        {"text": "one", "segment": [1, 2]},
    ]
    labels = [{"label": "jump", "segment": [0, 1]}, {"label": "jump", "segment": [2, 3]}]
    everything = meta(summary="all", captions=captions, annotations=labels)
    assert texts_of_video(everything, ("a {label}",)) == [("all", "all")]
    parts = meta(summaries=[{"text": "half", "segment": [0, 1]}], captions=captions, annotations=labels)
    assert texts_of_video(parts, ("a {label}",)) == [("half", "half")]
    assert texts_of_video(replace(everything, summary=None), ("a {label}",)) == [("one", "one"), ("two", "two")]
    only_labels = replace(everything, summary=None, captions=[])
    assert texts_of_video(only_labels, ("a {label}", "b {label}")) == [
        ("a jump", "label: jump"),
        ("b jump", "label: jump"),
    ]
    assert texts_of_video(meta(), ("a {label}",)) == []


def test_the_table_is_made_once_and_says_which_texts_are_equal(store: str) -> None:
    manifest = open_manifest(store)
    metas = read_metas(manifest, ("train", "dev"))
    calls: list[int] = []

    def counting(texts: list[str]) -> np.ndarray:
        calls.append(len(texts))
        return encode_text(texts)

    uri = make_text_table(manifest, CONFIG, texts_of(metas), counting)
    assert make_text_table(manifest, CONFIG, texts_of(metas[::-1]), counting) == uri and len(calls) == 1
    table = read_text_table(uri)
    assert set(table.texts_of) == {each.key for each in metas} and table.dim == 8
    for each in metas:
        texts = texts_of_video(each, CONFIG.templates)
        assert len(table.texts_of[each.key]) == len(texts)
        for choice in range(2 * len(texts)):
            row = table.row(each.key, choice)
            np.testing.assert_allclose(row.features_X, encode_text([texts[choice % len(texts)][0]])[0], rtol=1e-6)
    by_group: dict[int, set[str]] = {}
    for each in metas:
        for i, (_, group) in enumerate(texts_of_video(each, CONFIG.templates)):
            by_group.setdefault(table.row(each.key, i).group, set()).add(group)
    assert all(len(groups) == 1 for groups in by_group.values())
    assert len(by_group) == len(set().union(*by_group.values()))


def test_a_video_without_text_has_group_minus_one(store: str) -> None:
    manifest = open_manifest(store)
    metas = [*read_metas(manifest, ("train",)), meta(key="silent")]
    row = read_text_table(make_text_table(manifest, CONFIG, texts_of(metas), encode_text)).row("silent", 3)
    assert row.group == -1 and not row.features_X.any()


def test_other_texts_are_another_file(store: str) -> None:
    manifest = open_manifest(store)
    metas = read_metas(manifest, ("train",))
    other = TextConfig(encoder=CLIP, templates=("{label}!",))
    assert make_text_table(manifest, other, texts_of(metas, other.templates), encode_text) != make_text_table(
        manifest, CONFIG, texts_of(metas), encode_text
    )


@pytest.mark.parametrize("change", [{"seed": 1}, {"model": "ViT-B-32"}])
def test_another_models_text_is_refused(store: str, change: dict[str, object]) -> None:
    other = TextConfig(encoder=replace(CLIP, **change))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"text\.encoder.*copy the encoder from the extraction's config"):
        text_encoder_of(open_manifest(store), other)
    with pytest.raises(UserError, match="no CLIP column"):
        text_encoder_of(open_manifest(store, ["c3d"]), CONFIG)


def test_other_frames_of_the_same_model_are_fine(store: str) -> None:
    same_tower = TextConfig(encoder=replace(CLIP, batch_size=3, precision="fp32"))
    manifest = open_manifest(store)
    assert text_encoder_of(manifest, same_tower)[1] == manifest.encoders["clip"]


def test_a_store_without_any_text_says_so(tmp_path: Path) -> None:
    manifest = open_manifest(make_store(tmp_path / "store", 8, metadata=silent))
    with pytest.raises(UserError, match="none of the 8 videos has a summary, caption or label"):
        make_text_table(manifest, CONFIG, texts_of(read_metas(manifest, ("train", "dev", "val", "test"))), encode_text)


def test_the_real_text_tower_fills_the_table(store: str) -> None:
    manifest = open_manifest(store)
    table = read_text_table(make_text_table(manifest, CONFIG, texts_of(read_metas(manifest, ("dev",))), None))
    assert table.features_NX.dtype == np.float32 and np.isfinite(table.features_NX).all()
    assert table.dim not in DIMS.values()  # the tiny model's own width: not the stand-in's
    assert len(np.unique(table.features_NX.round(6), axis=0)) == len(table.features_NX)


def test_a_tower_that_is_trained_gets_the_tokens(store: str) -> None:
    manifest = open_manifest(store)
    texts = texts_of(read_metas(manifest, ("dev",)))
    uri = make_text_table(manifest, CONFIG, texts, encode_text, tokens=True)
    assert uri != make_text_table(manifest, CONFIG, texts, encode_text)
    assert uri == make_text_table(manifest, CONFIG, texts, None, tokens=True)
    table, tokenizer = read_text_table(uri), load_tokenizer(CLIP)
    assert table.features_NX.dtype == np.int32
    distinct = {text for each in texts.values() for text in each}
    assert len(table.features_NX) == len(distinct) < sum(map(len, texts.values()))
    for key, pairs in texts.items():
        tokens = tokenizer.tokens([text for text, _ in pairs])
        np.testing.assert_array_equal(table.features_NX[table.texts_of[key]], tokens)


IMPORTED = TextConfig(encoder=ImportedTextConfig(extractor="words"))


@pytest.fixture
def imported(store: str, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """The store as if its column c3d had come with text features of the extractor `words`."""
    manifest = open_manifest(store)
    column = manifest.encoder_column("c3d")
    came_with = replace(column, identity={"kind": "import", "text_extractor": "words"})
    own = Manifest.encoder_column
    monkeypatch.setattr(Manifest, "encoder_column", lambda m, name: came_with if name == "c3d" else own(m, name))
    return manifest


def test_imported_text_features_fill_the_table_as_a_text_tower_does(imported: Manifest) -> None:
    texts = texts_of(read_metas(imported, ("dev",)))
    with pytest.raises(UserError, match="text features"):
        make_text_table(imported, IMPORTED, texts, None)
    every = sorted({text for each in texts.values() for text, _ in each})
    vectors = np.random.default_rng(0).normal(size=(len(every), 5)).astype(np.float32)
    given = TextFeatures(tuple(every[1:]), vectors[1:])
    add_text_features(imported.store_uri, imported.encoders["c3d"], given)
    with pytest.raises(UserError, match=f"none for 1 of {len(every)} texts"):
        make_text_table(imported, IMPORTED, texts, None)
    add_text_features(imported.store_uri, imported.encoders["c3d"], TextFeatures(tuple(every), vectors))
    uri = make_text_table(imported, IMPORTED, texts, None)
    table = read_text_table(uri)
    assert table.dim == 5 and make_text_table(imported, CONFIG, texts, encode_text) != uri
    for key, pairs in texts.items():
        for choice, (text, _) in enumerate(pairs):
            np.testing.assert_array_equal(table.row(key, choice).features_X, vectors[every.index(text)])


def test_text_features_of_another_encoder_are_refused(imported: Manifest, store: str) -> None:
    texts = texts_of(read_metas(imported, ("dev",)))
    other = TextConfig(encoder=ImportedTextConfig(extractor="other words"))
    with pytest.raises(UserError, match=r"text\.encoder.*'other words'.*c3d: words"):
        make_text_table(imported, other, texts, encode_text)
    with pytest.raises(UserError, match="no column came with text features"):
        make_text_table(open_manifest(store, ["clip"]), IMPORTED, texts, encode_text)
    with pytest.raises(UserError, match="imported text features, which cannot encode new texts"):
        text_encoder_of(imported, IMPORTED)
