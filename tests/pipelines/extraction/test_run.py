"""The extraction job end to end on an embedded Ray: bad videos never stop the others, and nothing is done twice."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

from hvlm.errors import UserError
from pipelines.chaos.run import compare, describe
from pipelines.extraction import dataset as dataset_module
from pipelines.extraction import encode_stage
from pipelines.extraction import run as run_module
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.dataset import Stages
from pipelines.extraction.decode_stage import Decoder
from pipelines.extraction.encode_stage import DeviceFault, EncodeStage, MixedUpError, encode_table
from pipelines.extraction.ledger import RowConservationError, StageCount
from pipelines.extraction.preview import preview
from pipelines.extraction.remembered import remembered_config
from pipelines.extraction.run import ErrorBudgetExceeded, extract
from pipelines.extraction.staging_stage import Stager
from pipelines.store import publish as publish_module
from pipelines.store.catalog import FeatureStore
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.store.sources import SourceConfig, SourceListing, list_source
from pipelines.store.staging import StagingItem
from pipelines.store.upkeep.verify import verify_store
from tests.hvlm.video.numbered import RECIPES
from tests.hvlm.video.numbered import write_video as write_numbered
from tests.pipelines.extraction.conftest import write_video

Config = Callable[..., ExtractConfig]
GOOD = ["long one", "v0", "v1", "v2"]


def test_good_videos_land_bad_ones_are_in_quarantine_and_a_second_run_does_nothing(
    ray_cluster: None, config: Config, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = extract(config())
    assert report.num_done == 4 and report.published.published == 4
    store = FeatureStore.open(config().store_uri)
    reasons = dict(store.failures().select("video_id", "reason").iter_rows())
    assert set(reasons) == {"empty", "cut"} and reasons["empty"] == "unreadable"
    manifest = open_manifest(config().store_uri)
    assert sorted(manifest.frame["video_id"]) == GOOD
    for row in manifest.frame.iter_rows(named=True):
        seconds = 5 if row["video_id"] == "long one" else 2
        clip, meta = read_sample(config().store_uri, row, "clip")
        c3d, c3d_meta = read_sample(config().store_uri, row, "c3d")
        assert clip.shape == (seconds * 4, 128) and clip.dtype == np.float16
        assert c3d.shape == ((seconds * 10 - 16) // 8 + 1, 32)
        assert meta.video_id == row["video_id"] and meta.timestamps_s[:3] == pytest.approx([0.0, 0.2, 0.5])
        assert (c3d_meta.stride_s, c3d_meta.clip_s, c3d_meta.offset_s) == pytest.approx((0.8, 1.6, 0.0))
    assert not verify_store(config().store_uri).problems

    bytes_before = {path: path.read_bytes() for path in Path(config().store_uri).rglob("*.tar")}
    # Two encoders; 3 segments of one video and 1 of three others. `empty` and `cut` failed when they were hashed.
    pieces = {"encode:clip": StageCount(6, 6), "encode:c3d": StageCount(6, 6), "stage": StageCount(12, 12)}
    assert report.counts == {"decode": StageCount(12, 12), **pieces, "publish": StageCount(6, 4, 0, 2)}
    again = extract(config())
    assert again.plan.todo.is_empty() and again.published.published == 0 and again.published.already_published == 4
    assert again.counts == {"publish": StageCount(6, 0, 4, 2)}
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "publish", lambda *of: replace(again.published, already_published=3))
        with pytest.raises(RowConservationError, match="publish: 6 in = 0 out"):
            extract(config())
    assert {path: path.read_bytes() for path in Path(config().store_uri).rglob("*.tar")} == bytes_before


def test_segments_join_to_the_features_of_the_whole_video(ray_cluster: None, config: Config, tmp_path: Path) -> None:
    extract(config())
    whole = config(store_uri=str(tmp_path / "whole-store"), decode={"segment_s": 3600.0})
    extract(whole)
    cut, uncut = open_manifest(config().store_uri), open_manifest(whole.store_uri)
    for encoder in ("clip", "c3d"):
        for a, b in zip(cut.rows(encoder).to_dicts(), uncut.rows(encoder).to_dicts(), strict=True):
            assert a["video_id"] == b["video_id"]
            one, one_meta = read_sample(cut.store_uri, a)
            other, other_meta = read_sample(uncut.store_uri, b)
            np.testing.assert_allclose(one.astype(np.float32), other.astype(np.float32), atol=2e-2)
            assert one_meta.timestamps_s == other_meta.timestamps_s


def test_a_run_that_dies_half_way_is_continued(
    ray_cluster: None, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = []
    original = FeatureStore.commit_staged

    def die_after_two(self: FeatureStore, rows: list[dict[str, object]]) -> None:
        original(self, rows)
        committed.append(len(rows))
        if len(committed) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "commit_staged", die_after_two)
        with pytest.raises(KeyboardInterrupt):
            extract(config(commit_interval_s=0.001))
    store = FeatureStore.open(config().store_uri)
    staged_before = store.staged().height
    assert staged_before == sum(committed) and store.samples().is_empty()
    assert remembered_config(store).commit_interval_s == 0.001
    report = extract(config())
    assert sorted(open_manifest(config().store_uri).frame["video_id"]) == GOOD
    assert report.num_frames < 2 * 11 * 20 and not verify_store(config().store_uri).problems


def test_new_and_changed_videos_are_the_only_work(ray_cluster: None, c3d_config: Config, videos: Path) -> None:
    extract(c3d_config())
    write_video(videos / "new.mp4", seed=20)
    write_video(videos / "v0.mp4", seconds=3.0, seed=21)
    (videos / "v1.mp4").unlink()
    seen = preview(c3d_config())
    assert seen.plan.counts["c3d"] | {"failed_before": 0} == {
        **dict.fromkeys(seen.plan.counts["c3d"], 0),
        "new": 1,
        "changed": 1,
        "done": 2,
    }
    assert seen.tombstoned == 1
    report = extract(c3d_config())
    assert sorted(report.plan.todo["video_id"]) == ["new", "v0"]
    manifest = open_manifest(c3d_config().store_uri)
    assert sorted(manifest.frame["video_id"]) == ["long one", "new", "v0", "v2"]
    assert dict(manifest.frame.select("video_id", "c3d.num_rows").iter_rows())["v0"] == 2


def test_another_encoder_setting_makes_only_that_encoder_stale(ray_cluster: None, config: Config) -> None:
    extract(config())
    values = {
        "clip": config().encoders["clip"],
        "c3d": {"kind": "c3d", "weights": "random", "fps": 10.0, "stride_frames": 4, "width": 0.0625, "fc_dim": 32},
    }
    report = extract(
        config(
            encoders={
                "clip": {
                    "kind": "clip",
                    "model": "jobs/configs/models/tiny_clip.json",
                    "pretrained": "random",
                    "sampling": {"kind": "fps", "fps": 4.0},
                },
                "c3d": values["c3d"],
            }
        )
    )
    assert report.plan.counts["clip"]["done"] == 4 and report.plan.counts["c3d"]["stale"] == 4
    assert {need["encoder"] for needs in report.plan.todo["needs"] for need in needs} == {"c3d"}
    manifest = open_manifest(config().store_uri)
    assert manifest.num_incomplete == 0 and manifest.frame.height == 4
    first = manifest.frame.select(
        pl.col("clip.shard").str.split("/").list.last() == pl.col("c3d.shard").str.split("/").list.last()
    )
    assert first.to_series().all()


def test_a_lost_row_fails_the_job(ray_cluster: None, c3d_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    original = run_module.extraction_dataset

    def lossy(work, stages):  # type: ignore[no-untyped-def]
        return original(work, stages).limit(3)

    monkeypatch.setattr(run_module, "extraction_dataset", lossy)
    with pytest.raises(RowConservationError, match="neither came out nor failed"):
        extract(c3d_config())
    assert FeatureStore.open(c3d_config().store_uri).samples().is_empty()


def test_the_error_budget_ends_the_run_with_a_table_and_what_was_committed_stays(
    ray_cluster: None, config: Config, videos: Path
) -> None:
    for number in range(3):
        write_video(videos / f"v{number}.mp4", seconds=6.0, seed=number)  # the longest come first
    for number in range(12):
        whole = write_video(videos / "whole.mp4", seconds=3.0, seed=number).read_bytes()
        third = len(whole) // 3  # zeros, which the snapshot does not see: what it finds ends the run before it decodes
        (videos / f"cut{number}.mp4").write_bytes(whole[:third] + bytes(third) + whole[2 * third :])
    (videos / "whole.mp4").unlink()
    shape = {"encoders": {"clip": config().encoders["clip"]}, "decode": {"segment_s": 60.0}}
    strict = config(max_failed_fraction=0.1, commit_interval_s=0.001, **shape)
    with pytest.raises(ErrorBudgetExceeded, match=r"1\d of 18 videos failed.*max_failed_fraction=0\.1") as caught:
        extract(strict)
    store = FeatureStore.open(strict.store_uri)
    failures = store.failures()
    table = dict(failures["reason"].value_counts().iter_rows())
    said = [line.split(" × ") for line in str(caught.value).splitlines()[1:]]
    assert {reason: int(count) for count, reason in said} == table and sum(table.values()) > 10
    staged = store.staged()
    assert store.samples().is_empty() and not staged.is_empty()
    report = extract(replace(strict, max_failed_fraction=1.0))
    assert sorted(open_manifest(strict.store_uri).frame["video_id"]) == GOOD
    assert report.num_frames + staged["num_rows"].sum() == (3 * 6 + 5) * 4  # nothing is decoded a second time


def test_more_gpus_than_the_cluster_has_is_said_at_once(ray_cluster: None, config: Config) -> None:
    with pytest.raises(UserError, match="GPU"):
        extract(config(resources={"encoder_num_gpus": 1.0, "encoder_actors": 4}))


def test_a_source_that_can_only_not_be_read_today_fails_the_job(
    ray_cluster: None, c3d_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grown(source: SourceConfig) -> SourceListing:
        listing = list_source(source)
        return replace(listing, frame=listing.frame.with_columns(pl.col("size_bytes") + 1))

    monkeypatch.setattr(run_module, "list_source", grown)  # every file ends before its listed size: it is being written
    with pytest.raises(ErrorBudgetExceeded, match=r"none of 6 videos.*\n.*6 × storage_transient"):
        extract(c3d_config())
    monkeypatch.undo()
    assert extract(c3d_config()).num_done == 4


def test_a_file_that_cannot_be_read_now_keeps_what_it_has_and_is_not_decoded_under_its_old_hash(
    ray_cluster: None, c3d_config: Config, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(c3d_config())
    write_video(videos / "v0.mp4", seed=77)  # replaced, and still being written when the next job looks at it

    def growing(source: SourceConfig) -> SourceListing:
        listing = list_source(source)
        more = pl.col("size_bytes") + (pl.col("video_id") == "v0").cast(pl.Int64)
        return replace(listing, frame=listing.frame.with_columns(size_bytes=more))

    other = c3d_config(encoders={"c3d": replace(c3d_config().encoders["c3d"], fps=5.0)})
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "list_source", growing)
        report = extract(other)
    assert report.num_done == 3  # v0's old hash is stale too, but its file is not what was hashed
    staged = FeatureStore.open(other.store_uri).staged()
    assert staged.filter(pl.col("video_id") == "v0").is_empty()
    assert extract(other).num_done == 1


def config_encoders(fps: float) -> dict[str, Any]:
    model = {"kind": "clip", "model": "jobs/configs/models/tiny_clip.json", "pretrained": "random"}
    return {"clip": model | {"sampling": {"kind": "fps", "fps": fps}}}


def test_a_decoding_limit_of_the_config_holds_and_its_failures_can_be_retried(
    ray_cluster: None, c3d_config: Config
) -> None:
    limits = {"limits": {"output_gib": 1e-6}, "segment_s": 2.0}  # 1 kB: less than a frame
    with pytest.raises(ErrorBudgetExceeded, match="too_large"):
        extract(c3d_config(decode=limits))
    assert extract(c3d_config(retry_failed=True)).num_done == 4


def test_rejected_lines_of_a_list_count_for_the_error_budget(
    config: Config, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "connect", lambda _: pytest.fail("the run must end before its first wave"))
    monkeypatch.setattr(run_module._Run, "map_tasks", lambda self, function, inputs: map(function, inputs))
    names = [f"{number},{videos}/{name}.mp4" for number in range(6) for name in ("v0", "v1")]
    (tmp_path / "list.csv").write_text("\n".join(["video_id,uri", *names, f"good,{videos}/v2.mp4"]))
    listed = config(source={"uri": str(tmp_path / "list.csv")})
    with pytest.raises(ErrorBudgetExceeded, match=r"12 of 13 videos failed(.|\n)*12 × duplicate_id"):
        extract(listed)
    with pytest.raises(pytest.fail.Exception, match="first wave"):  # 12 of 13 are allowed
        extract(replace(listed, max_failed_fraction=0.95))


def test_nothing_of_a_run_that_mixed_up_rows_is_published_later(
    ray_cluster: None, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"segments_per_batch": 1, "segments_per_tar": 1, "encoder_threads": 1, "encoder_actors": 1}
    shape = {"encoders": config_encoders(fps=4.0), "commit_interval_s": 0.001, "resources": one}
    undisturbed = config(store_uri=str(tmp_path / "undisturbed"), **shape)
    extract(undisturbed)
    store_uri = config().store_uri

    class MixesBetweenProofs(EncodeStage):
        """Mixes up batches 62 to 64; 65, which is proved, waits until some of that is in the catalog."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._num_batches, sound = 61, self._encoder.encode
            self._encoder.encode = lambda clips: sound(clips)[::-1]  # type: ignore[method-assign]

        def __call__(self, table: pa.Table) -> pa.Table:
            until = monotonic() + 90
            while self._num_batches == 64 and FeatureStore.open(store_uri).staged().is_empty():
                if monotonic() > until:
                    raise TimeoutError
                sleep(0.05)
            return super().__call__(table)

    with monkeypatch.context() as patched:
        patched.setattr(dataset_module, "EncodeStage", MixesBetweenProofs)
        with pytest.raises(MixedUpError, match="what this run staged is dropped"):
            extract(config(**shape))
    store = FeatureStore.open(store_uri)
    assert store.staged().is_empty() and store.samples().is_empty()
    extract(config(**shape))
    assert compare(describe(undisturbed.store_uri), describe(store_uri)) == []


@pytest.mark.parametrize(
    ("mutation", "error", "said"),
    [
        ("permuted", MixedUpError, "other features alone"),
        ("shifted", MixedUpError, "other features alone"),
        ("clip lost", ErrorBudgetExceeded, "none of 6 videos.*4 × encoder_error"),
        ("clip doubled", ErrorBudgetExceeded, "none of 6 videos.*4 × encoder_error"),
        ("zeroed", ErrorBudgetExceeded, "none of 6 videos.*4 × encoder_error"),
        ("row lost", RowConservationError, "neither came out nor failed"),
        ("row doubled", RowConservationError, "came out twice"),
    ],
)
def test_the_running_job_catches_every_mutation(
    ray_cluster: None,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    mutation: str,
    error: type[Exception],
    said: str,
) -> None:
    def of_features(features: np.ndarray) -> np.ndarray:
        if mutation == "permuted" and len(features) > 1:
            return features[::-1]
        if mutation == "clip lost":
            return features[1:]
        if mutation == "clip doubled":
            return np.concatenate([features, features[:1]])
        return features * (np.arange(len(features)) > 0)[:, None] if mutation == "zeroed" else features

    class Mutated(EncodeStage):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            sound = self._encoder.encode
            self._encoder.encode = lambda clips: of_features(sound(clips))  # type: ignore[method-assign]
            if mutation == "shifted":  # in this actor's process only
                cut = encode_stage.cut_clips
                encode_stage.cut_clips = lambda *of: np.roll(cut(*of), 1, axis=0)

        def __call__(self, table: pa.Table) -> pa.Table:
            table = super().__call__(table)
            table = table.slice(1) if mutation == "row lost" else table
            return pa.concat_tables([table, table.slice(0, 1)]) if mutation == "row doubled" else table

    monkeypatch.setattr(dataset_module, "EncodeStage", Mutated)
    batch = {"segments_per_batch": 1 if mutation == "zeroed" else 2, "encoder_threads": 1}  # alone, each has its zero
    shape = config(encoders=config_encoders(fps=4.0), resources=batch)
    with pytest.raises(error, match=f"(?s){said}"):
        extract(shape)
    store = FeatureStore.open(shape.store_uri)
    assert store.samples().is_empty()
    # Of a lost or doubled row the others are right, and stay; what else is wrong must not even be staged.
    assert error is RowConservationError or store.staged().is_empty()


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("decode", "neither came out nor failed.*decode gave out 3 and encode took in 2"),
        ("stage", "stage: 6 in = [0-5] out"),
        ("publish", "row conservation: 4 samples were planned, [0-3] were written"),
    ],
)
def test_each_stage_that_loses_a_row_is_named_by_the_running_job(
    ray_cluster: None, c3d_config: Config, videos: Path, monkeypatch: pytest.MonkeyPatch, stage: str, said: str
) -> None:
    class LosesWorkRows(Decoder):
        def __call__(self, work: pa.Table) -> Iterator[pa.Table]:
            yield from islice(super().__call__(work), 1, None)  # of a video's segments the first

    class LosesSegments(Stager):
        def _items(self, table: pa.Table, row: int) -> list[StagingItem]:
            return super()._items(table, row) if row else []

    dataset, write = run_module.extraction_dataset, publish_module._write_or_find_damage
    if stage == "decode":
        monkeypatch.setattr(run_module, "extraction_dataset", lambda work, stages: dataset(work, lossy(stages)))

    def lossy(stages: Stages) -> Stages:
        settings = {field.name: getattr(stages.decoder, field.name) for field in fields(Decoder)}
        return replace(stages, decoder=LosesWorkRows(**settings))

    if stage == "stage":
        monkeypatch.setattr(dataset_module, "Stager", LosesSegments)
    if stage == "publish":
        monkeypatch.setattr(publish_module, "_write_or_find_damage", lambda task: write(task)[1:])
    with pytest.raises((RowConservationError, RuntimeError), match=f"(?s){said}"):
        extract(c3d_config())
    assert FeatureStore.open(c3d_config().store_uri).samples().is_empty()


def raise_on_dark_pictures(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let the encoders of the workers raise on clips of the numbered video, which are darker than all others."""

    class Picky(EncodeStage):  # local: it is sent to the workers as a whole
        def __call__(self, table: pa.Table) -> pa.Table:
            encode = type(self._encoder).encode

            def raise_on_dark(clips: np.ndarray) -> np.ndarray:
                if (clips.reshape(len(clips), -1).mean(axis=1) < 110).any():
                    raise error
                return encode(self._encoder, clips)

            wrapped = SimpleNamespace(view=self._encoder.view, dim=self._encoder.dim, encode=raise_on_dark)
            return encode_table(table, self._name, wrapped)

    monkeypatch.setattr(dataset_module, "EncodeStage", Picky)


def test_a_video_that_the_encoder_cannot_take_is_one_row_and_the_others_land(
    ray_cluster: None, config: Config, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_numbered(videos / "dark.mp4", RECIPES["cfr"][1])
    raise_on_dark_pictures(monkeypatch, RuntimeError("the model cannot take this"))
    assert extract(config(encoders=config_encoders(fps=2.0))).num_done == 4
    failures = FeatureStore.open(config().store_uri).failures()
    (row,) = failures.filter(pl.col("video_id") == "dark").to_dicts()
    assert (row["stage"], row["encoder"], row["reason"], row["permanent"]) == ("encode", "clip", "encoder_error", True)
    assert "cannot take this" in row["message"] and set(failures["video_id"]) == {"dark", "empty", "cut"}
    assert sorted(open_manifest(config().store_uri).frame["video_id"]) == GOOD


def test_a_gpu_that_fails_ends_the_job_and_no_video_is_blamed(
    ray_cluster: None, config: Config, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_numbered(videos / "dark.mp4", RECIPES["cfr"][1])
    with monkeypatch.context() as patched:
        raise_on_dark_pictures(patched, torch.AcceleratorError("CUDA error: unspecified launch failure"))
        with pytest.raises(DeviceFault, match=r"encoder clip: GPU .* failed .*unspecified launch failure"):
            extract(config(encoders=config_encoders(fps=2.0)))
    store = FeatureStore.open(config().store_uri)
    assert "encoder_error" not in set(store.failures()["reason"]) and store.samples().is_empty()
    assert extract(config(encoders=config_encoders(fps=2.0))).plan.todo["video_id"].is_in(["dark"]).any()
    assert sorted(open_manifest(config().store_uri).frame["video_id"]) == ["dark", *GOOD]
