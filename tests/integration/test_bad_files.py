"""One extraction over 41 bad files and names among 15 good ones: each bad one has its reason, each good one lands."""

import os
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from hvlm.errors import Reason
from infra.config_io import build_config
from pipelines.extraction import run as run_module
from pipelines.extraction import sandbox
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.decode_stage import Decoder
from pipelines.extraction.run import extract
from pipelines.store.catalog import FeatureStore
from pipelines.store.manifest import open_manifest
from pipelines.store.upkeep.verify import verify_store
from tests.integration.bad_videos import BAD, GOOD_NAMES, write_stream
from tests.pipelines.extraction.conftest import write_video

HOSTILE = """
import ctypes, pipelines.extraction.sandbox_child as child
scan = child.scan_video
def scan_video(path):
    if 'hangs' in path: ctypes.PyDLL(None).sleep(1000)
    if 'eats' in path: kept = [bytearray(2**26) for _ in range(640)]
    if 'segfaults' in path: ctypes.string_at(8)
    return scan(path)
child.scan_video = scan_video
child.main({handle}, {memory_bytes})
"""


class HostileDecoder(Decoder):
    """The decode stage with a child that does to its process what the names of three files say."""

    __slots__ = ()

    def __call__(self, work: pa.Table) -> Iterator[pa.Table]:
        if sandbox._COMMAND != HOSTILE:
            sandbox._COMMAND = HOSTILE
            sandbox.process_sandbox(self.limits).close()
        yield from Decoder.__call__(self, work)


def bad_lines(folder: Path) -> list[tuple[str, str, str | None, Reason]]:
    """Lines of the list (id, uri, split) that are wrong by themselves, and their reasons."""
    for name in ("twice a.mp4", "twice b.mp4", "in two splits.mp4", "without id.mp4"):
        write_video(folder / name)
    return [
        ("twice", str(folder / "twice a.mp4"), None, Reason.DUPLICATE_ID),
        ("twice", str(folder / "twice b.mp4"), None, Reason.DUPLICATE_ID),
        ("in two splits", str(folder / "in two splits.mp4"), "train", Reason.DUPLICATE_ID),
        ("in two splits", str(folder / "in two splits.mp4"), "test", Reason.DUPLICATE_ID),
        ("", str(folder / "without id.mp4"), None, Reason.BAD_NAME),
        ("no such storage", "nosuch://bucket/a.mp4", None, Reason.STORAGE_PERMANENT),
    ]


@pytest.fixture
def config(tmp_path: Path) -> ExtractConfig:
    values: dict[str, Any] = {
        "store_uri": str(tmp_path / "store"),
        "source": {"uri": str(tmp_path / "list.parquet")},
        "encoders": {
            "clip": {
                "kind": "clip",
                "model": "jobs/configs/models/tiny_clip.json",
                "pretrained": "random",
                "sampling": {"kind": "fps", "fps": 2.0},
            }
        },
        "decode": {"limits": {"timeout_s": 8.0, "memory_gib": 1.0}},
        "resources": {"encoder_threads": 1},
        "max_failed_fraction": 1.0,
    }
    return build_config(ExtractConfig, values, origin="test")


def test_each_bad_file_has_its_reason_and_each_good_one_lands(
    ray_cluster: None, config: ExtractConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in GOOD_NAMES:
        write_stream(folder / name, seconds=1.0)
    (folder / "a link.mp4").symlink_to("plain.mp4")
    for name, (write, _) in BAD.items():
        write(folder / name)
    bad = [(name, str(folder / name), None, reason) for name, (_, reason) in BAD.items()]
    bad += bad_lines(folder)
    if os.geteuid() != 0:  # root may read everything
        (write_video(folder / "secret.mp4")).chmod(0)
        bad.append(("secret", str(folder / "secret.mp4"), None, Reason.STORAGE_PERMANENT))
    good = [(name, str(folder / name), None) for name in (*GOOD_NAMES, "a link.mp4")]
    lines = [*good, *((video_id, uri, split) for video_id, uri, split, _ in bad)]
    pl.DataFrame(lines, schema=["video_id", "uri", "split"], orient="row").write_parquet(tmp_path / "list.parquet")
    original = run_module.extraction_dataset

    def hostile(work: Any, stages: Any) -> Any:
        settings = {field.name: getattr(stages.decoder, field.name) for field in fields(Decoder)}
        return original(work, replace(stages, decoder=HostileDecoder(**settings)))

    monkeypatch.setattr(run_module, "extraction_dataset", hostile)
    report = extract(config)

    store = FeatureStore.open(config.store_uri)
    failures = store.failures()
    found = {(row["video_id"], row["uri"]): row["reason"] for row in failures.to_dicts()}
    assert found == {(video_id, uri): str(reason) for video_id, uri, _, reason in bad}
    assert failures.height == len(found) >= 41
    landed = open_manifest(config.store_uri).frame["video_id"].to_list()
    assert sorted(landed) == sorted(video_id for video_id, _, _ in good) and len(good) == 15
    in_all = report.published.published + len(report.failures) + len(report.listing.rejected)
    assert in_all == len(lines) and report.published.incomplete == 0
    assert not verify_store(config.store_uri).problems
