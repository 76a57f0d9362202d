from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hvlm.errors import UserError
from pipelines.training.baselines.labels import collect_labels, read_labels, write_labels


def meta(key: str, split: str, *labels: str) -> Any:
    return SimpleNamespace(key=key, split=split, annotations=[{"label": label} for label in labels])


def test_labels_of_videos_by_hand(tmp_path: Path) -> None:
    metas = [meta("a", "train", "run", "jump", "run"), meta("b", "train"), meta("c", "dev", "run", "unseen")]
    write_labels(str(tmp_path), collect_labels(metas))
    table = read_labels(str(tmp_path))
    assert table.classes == ("jump", "run")
    assert table.matrix(["c", "a", "b"]).tolist() == [[False, True], [True, True], [False, False]]


def test_one_class_is_nothing_to_learn() -> None:
    with pytest.raises(UserError, match="got 1 classes"):
        collect_labels([meta("a", "train", "run"), meta("b", "dev", "jump")])
