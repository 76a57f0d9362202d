"""jobs.extract and jobs.plan as a user runs them: what they print, and that a plan writes nothing."""

from pathlib import Path

import pytest

from infra.config_io import build_config
from jobs import extract, plan
from jobs.entry import guarded
from pipelines.extraction.config import ExtractConfig
from tests.pipelines.extraction.conftest import write_video


def config(tmp_path: Path, **changes: object) -> ExtractConfig:
    values: dict[str, object] = {
        "store_uri": str(tmp_path / "store"),
        "source": {"uri": str(tmp_path / "videos")},
        "encoders": {
            "clip": {"kind": "clip", "model": "jobs/configs/models/tiny_clip.json", "pretrained": "random"},
        },
        "resources": {"encoder_threads": 1},
    }
    return build_config(ExtractConfig, {**values, **changes}, origin="test")


def test_plan_extract_and_extract_again(ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.b c é.mp4")
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"not a video")
    assert plan.job(config(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "to extract: 1 videos" in printed and "failed_before" in printed and "rough time" in printed
    assert not (tmp_path / "store").exists()
    assert extract.job(config(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "published  1 videos" in printed and "1 × unreadable" in printed
    assert extract.job(config(tmp_path)) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert plan.job(config(tmp_path)) == 0
    assert "nothing to extract" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda folder: None, "videos"), (lambda folder: folder.mkdir(), "no such file")],
    ids=["missing", "empty"],
)
def test_a_source_without_videos_is_the_users_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: object, message: str
) -> None:
    make(tmp_path / "videos")  # type: ignore[operator]
    for job in (plan.job, extract.job):
        assert guarded(lambda job=job: job(config(tmp_path))) == 2  # type: ignore[misc]
        error = capsys.readouterr().err
        assert message in error and "expected" in error


def test_a_source_of_bad_videos_alone_fails_the_job_and_fails_it_again(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"not a video")
    for _ in range(2):
        assert guarded(lambda: extract.job(config(tmp_path))) == 1
        assert "none of 1 videos could be extracted" in capsys.readouterr().err
    assert not (tmp_path / "store" / "extract.json").exists()  # no configuration that ever made a feature
