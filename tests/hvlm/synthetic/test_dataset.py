"""A world is rendered once; what is missing is made again, what is foreign is never touched."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import av
import pytest

from hvlm.errors import UserError
from hvlm.synthetic import dataset
from hvlm.synthetic.dataset import RenderConfig, render_world
from hvlm.synthetic.rendering import PictureConfig
from hvlm.synthetic.world import WorldConfig


def _config(folder: Path, **world: int) -> RenderConfig:
    small = WorldConfig(num_videos=3, num_families=1, min_duration_s=6.0, max_duration_s=6.0)
    return RenderConfig(
        output_path=str(folder),
        world=replace(small, **world),  # type: ignore[arg-type]
        picture=PictureConfig(width_px=32, height_px=32, fps=4, vary_every=3),
        num_processes=1,
    )


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "videos").iterdir())}


def test_a_world_is_rendered_once(tmp_path: Path) -> None:
    first = render_world(_config(tmp_path))
    assert (first.num_rendered, first.num_kept, first.num_videos, first.num_bad_files, first.num_activities) == (
        6,
        0,
        3,
        3,
        2,
    )
    names = [
        "bad-audio-only.mp4",
        "bad-empty.mp4",
        "bad-truncated.mp4",
        "planted-0000.mp4",
        "planted-0001.mp4",
        "planted-0002.mp4",
    ]
    assert sorted(_contents(tmp_path)) == names
    assert first.size_bytes == sum(map(len, _contents(tmp_path).values()))
    assert first.video_s == pytest.approx(18.0, abs=0.5)
    annotated = json.loads((tmp_path / "annotations.json").read_text())["database"]
    assert sorted(annotated) == ["planted-0000", "planted-0001", "planted-0002"]
    written = (tmp_path / "videos" / "planted-0000.mp4").stat().st_mtime_ns
    second = render_world(_config(tmp_path))
    assert (second.num_rendered, second.num_kept, second.size_bytes) == (0, 6, first.size_bytes)
    assert (tmp_path / "videos" / "planted-0000.mp4").stat().st_mtime_ns == written


def test_missing_and_cut_files_are_made_again_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    render_world(_config(tmp_path))
    before = _contents(tmp_path)
    (tmp_path / "videos" / "planted-0001.mp4").unlink()
    os.truncate(tmp_path / "videos" / "planted-0002.mp4", 100)
    again = render_world(_config(tmp_path))
    assert (again.num_rendered, again.num_kept) == (2, 4)
    assert _contents(tmp_path) == before


def test_two_processes_give_the_bytes_of_one(tmp_path: Path) -> None:
    render_world(_config(tmp_path / "one"))
    render_world(replace(_config(tmp_path / "two"), num_processes=2))
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")


def test_another_world_replaces_the_files_of_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    render_world(_config(tmp_path))
    (tmp_path / "videos" / "mine.mp4").write_bytes(b"x")
    (tmp_path / "store").mkdir()
    report = render_world(_config(tmp_path, num_videos=2, seed=1))
    assert report.num_rendered == 5
    assert "planted-0002.mp4" not in _contents(tmp_path)
    assert _contents(tmp_path)["mine.mp4"] == b"x"
    assert (tmp_path / "store").is_dir()


def test_without_bad_files_the_videos_are_the_same(tmp_path: Path) -> None:
    render_world(_config(tmp_path / "with"))
    render_world(replace(_config(tmp_path / "without"), bad_files=False))
    planted = {name: content for name, content in _contents(tmp_path / "with").items() if name.startswith("planted")}
    assert _contents(tmp_path / "without") == planted


def test_a_folder_of_somebody_elses_videos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "holiday.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match="choose another folder"):
        render_world(_config(tmp_path))
    assert [path.name for path in tmp_path.rglob("*")] == ["videos", "holiday.mp4"]


def test_a_folder_without_permission_is_the_users_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        render_world(_config(tmp_path / "locked"))


@pytest.mark.parametrize("values", [{"output_path": ""}, {"output_path": "s3://bucket/world"}, {"num_processes": -1}])
def test_values_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(UserError, match="expected"):
        RenderConfig(**({"output_path": "x"} | values))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [OSError, av.error.OSError])
def test_a_full_disk_is_the_users_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]) -> None:
    def full(*_: object) -> None:
        raise error(errno.ENOSPC, os.strerror(errno.ENOSPC), "planted-0000.mp4")

    monkeypatch.setattr(dataset, "render_video", full)
    with pytest.raises(UserError, match=r"planted-0000\.mp4: No space left on device.* with room"):
        render_world(_config(tmp_path))
