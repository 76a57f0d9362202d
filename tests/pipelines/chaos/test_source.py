"""The copy of a source changes one video at a time; the original never."""

import random
from pathlib import Path

from hvlm.video.index import scan_video
from pipelines.chaos.source import CHANGES, ChangingSource


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_four_changes_are_one_of_each_kind(tmp_path: Path) -> None:
    original = tmp_path / "videos"
    (original / "sub").mkdir(parents=True)
    for number in range(4):
        (original / "sub" / f"v{number}.mp4").write_bytes(bytes([number]))
    (original / "notes.txt").write_text("no video")
    before = contents(original)
    source = ChangingSource(original, tmp_path / "copy", random.Random(1))
    for _ in range(2):
        kinds = set()
        for _ in CHANGES:
            was = contents(source.path)
            said, now = source.change(), contents(source.path)
            gone, new = was.keys() - now.keys(), now.keys() - was.keys()
            same = [name for name in was.keys() & now.keys() if was[name] != now[name]]
            kind = {(0, 1, 0): "add", (0, 0, 1): "replace", (1, 0, 0): "delete", (1, 1, 0): "rename"}[
                len(gone), len(new), len(same)
            ]
            assert kind != "rename" or [was[name] for name in gone] == [now[name] for name in new]
            for name in [*new, *same] if kind in ("add", "replace") else ():
                (path,) = source.path.rglob(name)
                assert scan_video(str(path)).duration_s > 3
            assert kind in said
            kinds.add(kind)
        assert kinds == set(CHANGES)
    assert contents(original) == before and "notes.txt" in contents(source.path)
