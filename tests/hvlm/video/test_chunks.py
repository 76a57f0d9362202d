from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from hvlm.errors import Reason, VideoError
from hvlm.video import chunks
from hvlm.video.chunks import Chunk, read_batches, read_chunks
from hvlm.video.index import open_video, scan_video
from hvlm.video.packets import PacketReader, plan_runs
from tests.hvlm.video.backends import WITH_PTS
from tests.hvlm.video.numbered import request_frames


def read(path: Path, frames: list[int], shift: int = 0) -> list[Chunk]:
    index = scan_video(path)
    request = request_frames(index, frames)
    request.frame_pts[-1] += shift
    with open_video(path) as container:
        reader = PacketReader(container, container.streams[index.stream_index], str(path))
        return [chunk for run in plan_runs(request) for chunk in read_chunks(reader, run, request)]


@pytest.mark.parametrize("name", WITH_PTS)
def test_a_long_run_is_cut_at_keyframes(numbered_video: Callable[[str], Path], monkeypatch, name: str):
    """Every frame is wanted from one chunk alone, at its place among the frames that the chunk shows."""
    (whole,) = read(numbered_video(name), list(range(60)))
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1)
    cut = read(numbered_video(name), list(range(60)))
    assert len(cut) >= 4 and sum(len(chunk.numbers) for chunk in cut) == len(whole.numbers) == 60
    start = 0
    for chunk in cut:
        with av.open(chunk.file) as container:
            shown = sorted(packet.pts for packet in container.demux(video=0) if packet.pts is not None)
        assert len(shown) == len(chunk.times_s) and chunk.times_s[0] == 0
        np.testing.assert_allclose(
            chunk.times_s[chunk.numbers] - chunk.times_s[chunk.numbers[0]],
            whole.times_s[start : start + len(chunk.numbers)] - whole.times_s[start],
            atol=1e-9,
        )
        start += len(chunk.numbers)


def test_a_missing_packet_is_named(numbered_video: Callable[[str], Path]):
    with pytest.raises(VideoError, match=r"1 of 2 wanted frames.*frame 20 failed: its packet is missing") as failure:
        read(numbered_video("cfr"), [3, 20], shift=1)
    assert failure.value.reason == Reason.TRUNCATED


def test_batches_hold_about_so_many_bytes(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def decode(numbers: np.ndarray) -> np.ndarray:
        asked.append(numbers.tolist())
        return np.full((len(numbers), 2, 5, 3), numbers[:, None, None, None], np.uint8)

    monkeypatch.setattr(chunks, "BATCH_BYTES", 100)  # three frames of 30 bytes
    frames = list(read_batches(np.array([4, 5, 7, 8, 9, 11]), decode))
    assert asked == [[4], [5, 7, 8], [9, 11]]
    assert [int(frame[0, 0, 0]) for frame in frames] == [4, 5, 7, 8, 9, 11]


def test_frames_that_must_be_counted_have_no_chunks(numbered_video: Callable[[str], Path]):
    with pytest.raises(ValueError, match="no pts"):
        read(numbered_video("mpeg4_avi"), [0])
