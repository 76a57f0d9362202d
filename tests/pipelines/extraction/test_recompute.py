"""Features that are extracted again are those that are stored; what is not is named."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipelines.extraction import recompute as recompute_module
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.recompute import Extractor, RecomputeReport, distance, recompute
from pipelines.extraction.run import extract
from pipelines.store.catalog import FeatureStore
from pipelines.store.liveness import live_samples
from pipelines.store.manifest import open_manifest
from pipelines.store.upkeep.repair import repair
from pipelines.store.upkeep.verify import verify_store
from tests.pipelines.extraction.conftest import write_video
from tests.pipelines.store.world import tree

Config = Callable[..., ExtractConfig]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def proof(config: ExtractConfig, stack: ExitStack, share: float = 1.0, **options: Any) -> RecomputeReport:
    store = FeatureStore.open(config.store_uri)
    values = {"seed": 0, "tolerance": 0.02, "damaged": frozenset()} | options
    return recompute(store, Extractor(config, store, stack), share, **values)


def test_what_was_extracted_comes_out_again_and_what_differs_is_named(
    ray_cluster: None, config: Config, videos: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(config())
    before = tree(Path(config().store_uri), ".")
    original = recompute_module.read_sample

    def off(store_uri: str, row: dict[str, Any]) -> Any:
        features, meta = original(store_uri, row)
        wrong = (row["video_id"], row["encoder"]) == ("long one", "c3d")
        return (np.roll(features, 1, axis=0) if wrong else features), meta

    write_video(videos / "v2.mp4", seconds=2.0, seed=99)  # other content under the same name
    (videos / "v0.mp4").touch()  # a new time, the same content
    monkeypatch.setattr(recompute_module, "read_sample", off)
    report = proof(config(), stack)
    assert (report.chosen, report.compared) == (8, 6)
    assert [(problem.video_id, "c3d-" in problem.shard) for problem in report.problems] == [("long one", True)]
    assert {video_id for video_id, _, _ in report.skipped} == {"v2"}
    assert all("not the file that was extracted" in why for why in report.skipped.values())
    assert {name: digest for name, digest in tree(Path(config().store_uri), ".").items() if name in before} == before


def test_spans_are_those_of_what_was_published_whatever_the_annotations_say_now(
    ray_cluster: None, config: Config, videos: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations = videos.parent / "annotations.json"

    def annotate(segment: list[float]) -> None:
        items = [{"label": "run", "segment": segment}]
        annotations.write_text(
            json.dumps({"database": {path.stem: {"annotations": items} for path in videos.iterdir()}})
        )

    c3d = {"kind": "c3d", "weights": "random", "fps": 10.0, "only_spans": True, "width": 0.0625, "fc_dim": 32}
    spans = config(source={"uri": str(videos), "annotations_uri": str(annotations)}, encoders={"c3d": c3d})
    annotate([1.7, 3.0])
    extract(spans)  # of 2 s of video there is one clip only, and it ends at 1.6 s
    assert list(open_manifest(spans.store_uri).frame.select("video_id", "c3d.num_rows").iter_rows()) == [
        ("long one", 1)
    ]
    annotate([0.0, 9.0])
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("pipelines.extraction.run.plan_of", interrupt)  # the snapshot stands, its work is not done
        extract(spans)
    report = proof(spans, stack)
    assert (report.chosen, report.compared, report.problems, report.skipped) == (1, 1, (), {})


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_repair_needs_the_damaged_videos_alone_and_gives_the_old_bytes(
    ray_cluster: None, config: Config, videos: Path, stack: ExitStack
) -> None:
    extract(config())
    uri, store = config().store_uri, FeatureStore.open(config().store_uri)
    before = tree(Path(uri))
    row = store.samples().filter((pl.col("video_id") == "long one") & (pl.col("encoder") == "clip")).row(0, named=True)
    data = bytearray((Path(uri) / row["shard"]).read_bytes())
    data[row["offset"] + 700] ^= 1
    (Path(uri) / row["shard"]).write_bytes(data)
    for path in videos.glob("v*.mp4"):
        path.unlink()  # what is not damaged is not decoded
    report = repair(store, verify_store(uri).problems, Extractor(config(), store, stack))
    assert report.extracted == {"long one"} and not report.failed
    assert report.mended == [row["shard"]] and tree(Path(uri)) == before


def test_other_encoders_and_lost_files_are_said_without_ray(
    config: Config, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = FeatureStore.open(config().store_uri, create=True)
    extractor = Extractor(config(), store, stack)
    prints = extractor.fingerprints
    video = {"video_id": "a", "key": "a", "uri": str(tmp_path / "gone.mp4"), "hash_kind": "full", "state": "live"}
    monkeypatch.setattr(
        FeatureStore, "videos", lambda *_, **__: pl.DataFrame([video | {"content_hash": "h", "size_bytes": 1}])
    )
    rows = [("a", "clip", prints["clip"]), ("a", "c3d", "0" * 64), ("a", "c3d", prints["c3d"])]
    again = extractor(
        pl.DataFrame(
            [{"video_id": v, "encoder": e, "fingerprint": f, "content_hash": "h"} for v, e, f in rows],
        )
    )
    assert again.segments == {} and set(again.failed) == set(rows)
    assert "c3d-00000000" in again.failed[rows[1]] and "gone.mp4" in again.failed[rows[0]]


def test_the_distance_is_that_of_the_worst_row() -> None:
    again = np.array([[3, 4], [0, 2]], np.float16)
    stored = np.array([[3, 4], [0, 3]], np.float16)
    assert distance(again, again) == 0.0 and distance(stored, again) == pytest.approx(0.5)
    assert distance(stored[:1], again) == np.inf and distance(again[:0], again[:0]) == 0.0


def test_a_salvaged_video_is_salvaged_again(
    ray_cluster: None, c3d_config: Config, videos: Path, stack: ExitStack
) -> None:
    whole = write_video(videos / "whole.mp4", seconds=8.0, seed=30, moov_first=True).read_bytes()
    (videos / "half.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    salvaging = c3d_config(decode={"on_truncated": "salvage"})
    extract(salvaging)
    report = proof(salvaging, stack)
    assert (report.compared, report.problems, report.skipped) == (report.chosen, (), {})
    assert {"half", "whole"} <= set(live_samples(FeatureStore.open(salvaging.store_uri).samples())["video_id"])
    strict = proof(c3d_config(), stack)
    assert {video_id for video_id, _, _ in strict.skipped} == {"half"}
