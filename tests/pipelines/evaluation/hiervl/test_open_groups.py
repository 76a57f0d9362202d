"""A group for each file that is named; a file that is not there or not as its format says is refused."""

from pathlib import Path

import pytest

from hvlm.errors import UserError
from infra.config_io import build_config
from pipelines.evaluation.hiervl.checkpoint import load_hiervl
from pipelines.evaluation.hiervl.config import HierVLEvaluateConfig
from pipelines.evaluation.hiervl.open_groups import open_groups
from pipelines.training.checkpoints import find_checkpoint
from tests.pipelines.evaluation.hiervl.benchmark_files import write_files

VAL = [f"clip-{i:03d}" for i in range(12)]


def _open(trained, **values):
    config = build_config(HierVLEvaluateConfig, {"checkpoint": trained[1], **values}, origin="test")
    loaded = load_hiervl(find_checkpoint(trained[1]).uri)
    return {group.name: group for group in open_groups(config, loaded).groups}


def test_a_group_for_each_named_file(trained, tmp_path):
    assert list(_open(trained)) == ["retrieval", "questions", "classification", "embedding_map"]
    assert "embedding_map" not in _open(trained, num_map_points=0)
    groups = _open(trained, **write_files(tmp_path, VAL, ["clip-020"]))
    assert list(groups) == [
        "retrieval",
        "questions",
        "ego_mcq",
        "ego_summary_mcq",
        "epic_mir",
        "charades",
        "classification",
        "long_video",
        "anticipation",
        "embedding_map",
    ]
    assert len(groups["ego_mcq"].questions) == 3
    assert len(list(groups["epic_mir"].places())) == 7
    assert list(groups["charades"].texts()) == ["Doing one thing", "Doing another"]


def test_wrong_files(trained, tmp_path):
    values = write_files(tmp_path, VAL, [])
    with pytest.raises(UserError, match="which is not there"):
        _open(trained, ego_mcq_uri=str(tmp_path / "gone.json"))
    Path(values["ego_mcq_uri"]).write_bytes(b"\xff\xfe{")
    with pytest.raises(UserError, match="UTF-8"):
        _open(trained, ego_mcq_uri=values["ego_mcq_uri"])
    with pytest.raises(UserError, match="narration"):
        _open(trained, epic=values["epic"] | {"sentences_uri": values["charades"]["videos_uri"]})
