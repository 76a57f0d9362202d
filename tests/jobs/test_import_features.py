import json
import subprocess
import sys

import numpy as np
import pytest

from infra.config_io import load_config
from jobs.import_features import run
from pipelines.store.feature_files import FeatureFormat, ImportConfig


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "features").mkdir()
    for index in range(3):
        np.save(tmp_path / f"features/v{index}.npy", np.full((4, 2), index + 1.0))
    np.save(tmp_path / "features/nan.npy", np.full((4, 2), np.nan))
    database = {
        "v0": {"duration": 4.0, "annotations": [{"label": "a", "segment": [9, 12]}]},
        "lost": {},
        "v1": {"duration": 40.0},
        "v2": {"annotations": [{"label": "a", "segment": [1, 12]}]},
    }
    (tmp_path / "gt.json").write_text(json.dumps({"database": database}))
    return tmp_path


def config(folder):
    described = FeatureFormat(encoder="i3d", extractor="I3D", dim=2, stride_s=1.0, clip_s=1.0, offset_s=0.0)
    uris = {
        "store_uri": f"{folder}/store",
        "features_uri": f"{folder}/features",
        "annotations_uri": f"{folder}/gt.json",
    }
    return ImportConfig(**uris, format=described)


def test_the_report_lists_every_oddity(folder, capsys):
    assert run(config(folder)) == 0
    out = capsys.readouterr().out
    for line in (
        "published  3 now, 0 before, 1 failed",
        "nan: unreadable: 4 of 4 rows",
        "unlabelled 1 videos",
        "v2: segment [1, 12] of a video of 4.00 s: cut",
        "missing    1 annotated",
        "v0: 'a': segment [9, 12] s starts beyond the duration of 4 s",
        "v1: rows cover 4.0 s of 40.0 s",
    ):
        assert line in out
    assert run(config(folder)) == 0
    assert "nothing new to import" in capsys.readouterr().out


def test_nothing_imported_exits_with_1(folder, capsys):
    for index in range(3):
        (folder / f"features/v{index}.npy").unlink()
    assert run(config(folder)) == 1
    assert "nothing was imported" in capsys.readouterr().out


def test_the_command_line(folder):
    command = [sys.executable, "-m", "jobs.import_features", "--config", "jobs/configs/import_features.yaml"]
    uris = [f"store_uri={folder}/store", f"features_uri={folder}/features"]
    wrong = subprocess.run([*command, *uris], capture_output=True, text=True)
    assert wrong.returncode == 2 and "format.dim" in wrong.stderr
    right = subprocess.run([*command, *uris, "format.dim=2"], capture_output=True, text=True)
    assert right.returncode == 0, right.stderr


def test_the_config_loads():
    assert load_config(ImportConfig, "jobs/configs/import_features.yaml").format.dim == 2048
