"""Renders a whole world into a folder, once: what is already there from the same configuration is kept.

{output_path}/videos/planted-0000.mp4, ..., bad-*.mp4
{output_path}/annotations.json    ActivityNet-style; written last, so it is there when the world is whole
{output_path}/world.json          the configuration's identity, and size and sha256 of each file
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hvlm.config import Config, require
from hvlm.errors import UserError
from hvlm.synthetic.annotations import annotations_json
from hvlm.synthetic.bad_files import (
    AUDIO_ONLY_NAME,
    EMPTY_NAME,
    TRUNCATED_NAME,
    write_audio_only,
    write_empty,
    write_truncated,
)
from hvlm.synthetic.rendering import PictureConfig, VideoFormat, format_of, render_video, rendered_duration_s
from hvlm.synthetic.world import VideoScript, WorldConfig, make_world

# Raise it when the same configuration begins to give other pixels, times or words.
RENDERER_VERSION = 1
MANIFEST_NAME = "world.json"
ANNOTATIONS_NAME = "annotations.json"
BAD_NAMES = (TRUNCATED_NAME, EMPTY_NAME, AUDIO_ONLY_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderConfig(Config):
    """A world, what its files look like, and where they go. `num_processes` 0 means one per usable core."""

    output_path: str
    world: WorldConfig = field(default_factory=WorldConfig)
    picture: PictureConfig = field(default_factory=PictureConfig)
    bad_files: bool = True
    num_processes: int = 0

    def __post_init__(self) -> None:
        require(
            self.output_path != "",
            what="output_path",
            got="''",
            expected="a local folder",
            do="set e.g. output_path: runs/demo/world",
        )
        require(
            "://" not in self.output_path,
            what="output_path",
            got=self.output_path,
            expected="a local folder",
            do="render, then upload the folder",
        )
        require(
            self.num_processes >= 0,
            what="num_processes",
            got=self.num_processes,
            expected="0 or more",
            do="set 0 for all cores",
        )


@dataclass(frozen=True, slots=True)
class RenderReport:
    """What a call did and what now lies in the folder."""

    folder: Path
    num_rendered: int
    num_kept: int
    num_videos: int
    num_bad_files: int
    num_activities: int
    video_s: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Job:
    """One file to make; pickled to a worker process."""

    name: str
    script: VideoScript
    video_format: VideoFormat


def render_world(config: RenderConfig) -> RenderReport:
    """Make the folder hold exactly this world; files that an earlier, equal call finished are not made again.

    An interrupted call goes on where it stopped. Files of another world that this function made are replaced; files
    that it did not make are never touched.

    Raises:
        UserError: `videos` has files although there is no `world.json`, or the folder cannot be written (a full disk).
    """
    folder = Path(config.output_path).expanduser()
    jobs = _jobs(config)
    identity = _identity(config)
    try:
        manifest = _open_manifest(folder, identity, [job.name for job in jobs])
        videos = folder / "videos"
        todo = [job for job in jobs if not _is_there(videos / job.name, manifest["files"].get(job.name))]
        for made in _run(todo, videos, config.num_processes):
            manifest["files"] |= made
            _write_json(folder / MANIFEST_NAME, manifest)
        scripts = [job for job in jobs if job.name not in BAD_NAMES]
        durations_s = [rendered_duration_s(job.script, job.video_format) for job in scripts]
        resolutions = [(job.video_format.width, job.video_format.height) for job in scripts]
        annotations = annotations_json([job.script for job in scripts], durations_s, resolutions)
        _write_text(folder / ANNOTATIONS_NAME, annotations)
    except OSError as error:  # what is rendered stays, and the next run goes on there
        raise UserError(
            what="output_path",
            got=f"{error.filename or folder}: {error.strerror or error}",
            expected="a folder that can be written, with room",
            do="make room or choose another, then run the same command again",
        ) from error
    return RenderReport(
        folder=folder,
        num_rendered=len(todo),
        num_kept=len(jobs) - len(todo),
        num_videos=len(scripts),
        num_bad_files=len(jobs) - len(scripts),
        num_activities=len({job.script.activity for job in scripts}),
        video_s=sum(durations_s),
        size_bytes=sum(entry["bytes"] for entry in manifest["files"].values()),
    )


def _jobs(config: RenderConfig) -> list[_Job]:
    # The truncated file is one more video of the same world, so that the others do not depend on `bad_files`.
    scripts = make_world(replace(config.world, num_videos=config.world.num_videos + 1))
    formats = [format_of(index, config.picture) for index in range(len(scripts))]
    jobs = [_Job(script.video_id + form.suffix, script, form) for script, form in zip(scripts, formats, strict=True)]
    plain = format_of(0, replace(config.picture, vary_every=0))
    return jobs[:-1] + ([_Job(name, scripts[-1], plain) for name in BAD_NAMES] if config.bad_files else [])


def _identity(config: RenderConfig) -> str:
    """Hash of everything that the files depend on, which the folder and the number of processes are not."""
    content = {
        "version": RENDERER_VERSION,
        "world": asdict(config.world),
        "picture": asdict(config.picture),
        "bad_files": config.bad_files,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _open_manifest(folder: Path, identity: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the manifest to continue; makes the folder, and removes what an earlier call for another world wrote."""
    path, videos = folder / MANIFEST_NAME, folder / "videos"
    fresh: dict[str, Any] = {"identity": identity, "names": list(names), "files": {}}
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["identity"] == identity:
            return found
        (folder / ANNOTATIONS_NAME).unlink(missing_ok=True)
        for name in found["names"]:
            (videos / name).unlink(missing_ok=True)
    elif videos.is_dir() and any(videos.iterdir()):
        raise UserError(
            what="output_path",
            got=f"{folder}, whose folder 'videos' holds files although there is no {MANIFEST_NAME}",
            expected="a folder that this job made, or one without videos",
            do="choose another folder",
        )
    videos.mkdir(parents=True, exist_ok=True)
    _write_json(path, fresh)
    return fresh


def _is_there(path: Path, entry: dict[str, Any] | None) -> bool:
    return entry is not None and path.is_file() and path.stat().st_size == entry["bytes"]


def _run(jobs: Sequence[_Job], videos: Path, num_processes: int) -> Iterable[dict[str, Any]]:
    """Make the files in parallel; yields `{name: {bytes, sha256}}` as they get done."""
    num_processes = min(num_processes or len(os.sched_getaffinity(0)), len(jobs))
    if num_processes <= 1:
        yield from (_make(job, videos) for job in jobs)
        return
    with ExitStack() as stack:
        # Not fork: the caller may have threads (torch, Ray), and a forked lock never opens.
        context = multiprocessing.get_context("spawn")
        pool = stack.enter_context(ProcessPoolExecutor(num_processes, mp_context=context))
        stack.callback(pool.shutdown, cancel_futures=True)
        futures = [pool.submit(_make, job, videos) for job in jobs]
        for future in as_completed(futures):
            yield future.result()


def _make(job: _Job, videos: Path) -> dict[str, Any]:
    path = videos / job.name
    makers: dict[str, Callable[[], None]] = {
        TRUNCATED_NAME: lambda: write_truncated(job.script, job.video_format, path),
        EMPTY_NAME: lambda: write_empty(path),
        AUDIO_ONLY_NAME: lambda: write_audio_only(path),
    }
    if job.name in makers:
        makers[job.name]()
    else:
        render_video(job.script, job.video_format, path)
    content = path.read_bytes()
    return {job.name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
