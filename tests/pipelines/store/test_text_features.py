from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvlm.errors import UserError
from pipelines.store.text_features import TextFeatures, add_text_features, read_text_features, store_text_uri

VECTORS = np.arange(6, dtype=np.float64).reshape(3, 2)


def write(path: Path, texts: Any = ("a", "b b", "ç"), features: Any = VECTORS, **more: Any) -> str:
    np.savez(path, texts=np.array(texts), features=np.asarray(features), **more)
    return str(path)


def test_a_text_has_its_row_whatever_is_asked_for(tmp_path: Path) -> None:
    found = read_text_features(write(tmp_path / "texts.npz"))
    np.testing.assert_array_equal(found.encode(["ç", "a", "ç"]), VECTORS[[2, 0, 2]])
    assert found.features_NX.dtype == np.float32
    with pytest.raises(UserError, match=r"none for 1 of 2 texts, e.g. \['b'\]"):
        found.encode(["a", "b"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"texts": ("a", "b")},
        {"texts": ("a", "b", "a")},
        {"texts": (1, 2, 3)},
        {"features": VECTORS[:, 0]},
        {"features": VECTORS * np.nan},
        {"features": VECTORS[:, :0]},
        {"features": [["x"], ["y"], ["z"]]},
    ],
    ids=str,
)
def test_what_is_not_the_format_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="N different strings"):
        read_text_features(write(tmp_path / "texts.npz", **wrong))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", VECTORS)
    np.savez(tmp_path / "other.npz", vectors=VECTORS)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:50])
    (tmp_path / "text.npz").write_text("texts")
    for name in ("one.npy", "other.npz", "cut.npz", "text.npz", "missing.npz"):
        with pytest.raises(UserError, match="N different strings"):
            read_text_features(str(tmp_path / name))


def test_a_store_takes_new_texts_but_no_other_vector(tmp_path: Path) -> None:
    store, fingerprint = str(tmp_path), "0123456789"
    assert add_text_features(store, fingerprint, TextFeatures(("a", "b"), np.float32(VECTORS[:2]))) == 2
    assert add_text_features(store, fingerprint, TextFeatures(("b", "c"), np.float32(VECTORS[1:]))) == 1
    kept = read_text_features(store_text_uri(store, fingerprint))
    np.testing.assert_array_equal(kept.encode(["a", "b", "c"]), VECTORS)
    with pytest.raises(UserError, match=r"other vectors for 1 texts.*format\.text_extractor"):
        add_text_features(store, fingerprint, TextFeatures(("a",), np.float32([[9, 9]])))
    with pytest.raises(UserError, match="width"):
        add_text_features(store, fingerprint, TextFeatures(("new",), np.float32([[0, 1, 0]])))
    np.testing.assert_array_equal(read_text_features(store_text_uri(store, fingerprint)).features_NX, VECTORS)
