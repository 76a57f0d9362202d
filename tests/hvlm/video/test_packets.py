from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hvlm.errors import Reason, VideoError
from hvlm.video import packets
from hvlm.video.index import open_video, scan_video
from hvlm.video.packets import FrameRequest, PacketReader, backend_for, plan_runs, truncated
from tests.hvlm.video.numbered import Recipe, request_frames, write_video


def made_request(frames: list[int], keyframes: list[int], counted: bool = False) -> FrameRequest:
    return FrameRequest(
        path="made.mp4",
        stream_index=0,
        rotation=0,
        frame_index=np.array(frames, np.int64),
        frame_pts=np.array(frames, np.int64) * 10,
        seek_index=np.array(keyframes, np.int64),
        seek_pts=np.array(keyframes, np.int64) * 10,
        counted=counted,
    )


@pytest.mark.parametrize(
    ("frames", "keyframes", "expected"),
    [
        ([], [0, 50], []),
        ([0, 10, 30], [0, 50, 100], [(None, [0, 10, 30])]),  # all in the first GOP
        ([0, 45, 55], [0, 50, 100], [(None, [0, 45, 55])]),  # 4 frames would be saved: not worth it
        ([0, 20, 55, 120], [0, 50, 100], [(None, [0, 20]), (500, [55]), (1000, [120])]),
        ([60], [0, 50], [(500, [60])]),
        ([0, 5, 10], [0, 5, 10], [(None, [0]), (50, [5]), (100, [10])]),  # keyframes alone: nothing between them
        ([5, 6, 7], [4, 5, 6, 7], [(50, [5, 6, 7])]),  # every frame is one: no reason to start again
        ([10, 90], [50], [(None, [10]), (500, [90])]),  # an edit list hides the first keyframe
        ([10, 90], [], [(None, [10, 90])]),
    ],
)
def test_runs_start_where_a_keyframe_saves_decoding(frames, keyframes, expected):
    runs = plan_runs(made_request(frames, keyframes))
    assert [(run.seek_pts, run.frame_index.tolist()) for run in runs] == expected
    assert all(np.array_equal(run.frame_index * 10, run.frame_pts) for run in runs)


def test_counted_videos_are_one_run_from_the_start():
    (run,) = plan_runs(made_request([10, 500], [], counted=True))
    assert (run.seek_pts, run.frame_index.tolist()) == (None, [10, 500])


def read(path: Path, frames: list[int]) -> list[list[int]]:
    index = scan_video(path)
    request = request_frames(index, frames)
    with open_video(path) as container:
        reader = PacketReader(container, container.streams[index.stream_index], str(path))
        return [
            [int(np.searchsorted(index.pts, packet.pts)) for packet in reader.read_run(run, counted=False)]
            for run in plan_runs(request)
        ]


def test_only_needed_packets_are_handed_on(numbered_video: Callable[[str], Path]):
    assert read(numbered_video("cfr"), [2, 40]) == [[0, 1, 2], [36, 37, 38, 39, 40]]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_far_frames_are_reached_by_seeking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str):
    """5 minutes with a keyframe every 2 s: two frames far apart cost two GOPs of reading, not the file."""
    options = {"g": "50", "bf": "2", "preset": "ultrafast"}
    path = tmp_path / f"long.{suffix}"
    write_video(path, Recipe(pts=tuple(range(0, 7500 * 40, 40)), size=(32, 32), options=options))
    frames, reads = [3010, 7120], []
    next_packet = PacketReader._next
    monkeypatch.setattr(PacketReader, "_next", lambda self: reads.append(1) or next_packet(self))
    first, second = read(path, frames)
    assert first[0] == 3000 and 3010 in first and len(first) <= 14
    assert second[0] == 7100 and 7120 in second and len(second) <= 24
    assert len(reads) < 1000  # MPEG-TS seeks land a few seconds early


def test_a_keyframe_that_is_gone_is_a_failure_of_the_video(numbered_video: Callable[[str], Path]):
    index = scan_video(numbered_video("cfr"))
    run = packets.Run(int(index.pts[36]) + 1, np.array([36]), index.pts[36:37])
    with open_video(index.path) as container:
        reader = PacketReader(container, container.streams[0], index.path)
        with pytest.raises(VideoError, match="cannot be read again") as failure:
            list(reader.read_run(run, counted=False))
    assert failure.value.reason == Reason.TRUNCATED


def test_truncated_names_the_numbers():
    error = truncated(made_request([0, 10, 20], [0]), 1, "the file ended")
    assert error.reason == Reason.TRUNCATED and error.permanent
    assert "1 of 3 wanted frames" in str(error) and "frame 10" in str(error) and "the file ended" in str(error)


def test_frames_that_must_be_counted_are_pyavs():
    assert {backend_for(name, counted=True) for name in ("pyav", "decord", "torchcodec")} == {"pyav"}
    assert backend_for("decord", counted=False) == "decord"
