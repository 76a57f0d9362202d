"""A preview opens a bounded number of files and estimates the rest."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hvlm.errors import UserError
from pipelines.extraction import preview as preview_module
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.preview import preview
from pipelines.extraction.run import extract
from tests.pipelines.extraction.conftest import write_video


def test_hours_of_unread_files_are_the_mean_of_the_read_ones(
    config: Callable[..., ExtractConfig], videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in videos.iterdir():
        path.unlink()
    for number in range(6):
        write_video(videos / f"{number}.mp4", seconds=6.0)
    whole = preview(config())
    assert whole.num_unread == 0 and whole.predicted.hours == pytest.approx(36 / 3600)
    monkeypatch.setattr(preview_module, "READ_AT_MOST", 2)
    part = preview(config())
    assert part.predicted.feature_bytes == whole.predicted.feature_bytes
    assert part.num_unread == 4 and part.predicted.hours == pytest.approx(36 / 3600)
    assert part.plan.counts["clip"]["new"] == 6 and part.predicted.seconds is not None and part.predicted.seconds > 0


def test_a_machine_without_gpu_guesses_the_time_of_a_job_that_needs_one(config: Callable[..., ExtractConfig]) -> None:
    made = config()
    encoders = {name: replace(encoder, precision="fp16") for name, encoder in made.encoders.items()}
    seconds = preview(replace(made, encoders=encoders)).predicted.seconds
    assert seconds is not None and seconds > 0


def test_a_store_of_another_source_is_refused_by_the_plan_as_by_the_job(
    ray_cluster: None, config: Callable[..., ExtractConfig], tmp_path: Path
) -> None:
    extract(config())
    (tmp_path / "other").mkdir()
    write_video(tmp_path / "other" / "x.mp4")
    other = config(source={"uri": str(tmp_path / "other")})
    for job in (preview, extract):
        with pytest.raises(UserError, match="source of the store"):
            job(other)


def test_a_store_that_cannot_be_reached_is_named(
    config: Callable[..., ExtractConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(uri: str) -> bool:
        raise RuntimeError("no such endpoint")

    monkeypatch.setattr(preview_module.storage, "exists", refuse)
    with pytest.raises(UserError, match="store_uri: got memory://b/store, which cannot be reached"):
        preview_module._frames(config(store_uri="memory://b/store"))
