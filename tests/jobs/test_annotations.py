import json
import subprocess
import sys

import pytest

from hvlm.data.readers.egoclip import ClipRow, write_egoclip
from jobs.annotations import run
from pipelines.store.annotations import AnnotationPartConfig, AnnotationsConfig
from pipelines.store.sources import SourceConfig


@pytest.fixture
def folder(tmp_path):
    clip = ClipRow("a", (1.0, 2.0), "C cuts", annotator="one")
    (tmp_path / "clips.csv").write_text(write_egoclip([clip, clip._replace(span_s=(5.0, 4.0))]))
    (tmp_path / "summaries.csv").write_text(write_egoclip([clip._replace(video_id="lost", text="C cooks")]))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_text("a")
    (tmp_path / "videos/extra.mp4").write_text("b")
    return tmp_path


def test_the_report_says_what_is_missing_and_what_is_impossible(folder, capsys):
    part = AnnotationPartConfig(clips_uri=f"{folder}/clips.csv", summaries_uri=f"{folder}/summaries.csv")
    source = SourceConfig(uri=f"{folder}/videos")
    assert run(AnnotationsConfig(output_uri=f"{folder}/out.json", parts=(part,), source=source)) == 0
    out = capsys.readouterr().out
    for line in (
        f"annotations {folder}/out.json",
        "videos      2, 1 captions, 1 summaries of parts",
        "rows       1 are impossible",
        f"{folder}/clips.csv, line 3 (a): segment [5, 4] s is impossible: left out",
        "bare       1 summaries",
        "lost: 'C cooks' (one)",
        "unlabelled 1 videos",
        "missing    1 annotated",
    ):
        assert line in out


def test_the_command_line(folder):
    command = [sys.executable, "-m", "jobs.annotations", "--config", "jobs/configs/annotations.yaml"]
    parts = f"parts=[{{subset: training, clips_uri: {folder}/clips.csv}}]"
    done = subprocess.run([*command, f"output_uri={folder}/out.json", parts], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "out.json").read_text())["database"]["a"]["subset"] == "training"
