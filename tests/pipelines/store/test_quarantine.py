"""What is in quarantine today, and the two ways out of it."""

import time
from datetime import datetime
from typing import Any

import pytest

from hvlm.errors import UserError
from pipelines.store.quarantine import QuarantineFilter, quarantined, settle
from pipelines.store.schema import FAILURES
from tests.pipelines.store.world import CLIP, World, ids

ALL = QuarantineFilter()


def fail(world: World, video_id: str, **values: Any) -> None:
    content = dict(world.store.videos(["video_id", "content_hash"]).iter_rows())[video_id]
    base = {"stage": "decode", "reason": "truncated", "message": "cut", "permanent": True, "uri": f"/v/{video_id}.mp4"}
    world.store.commit_failures([base | {"video_id": video_id, "content_hash": content} | values])


@pytest.fixture
def world(tmp_path: Any) -> World:
    world = World(tmp_path / "store")
    world.add(*ids(4))
    world.snapshot()
    return world


def held(world: World, wanted: QuarantineFilter = ALL) -> list[str]:
    return [row["video_id"] for row in quarantined(world.store, wanted)]


def statuses(world: World) -> set[tuple[str, str, bool]]:
    return {row[:1] + row[2:] for row in world.plan().status.iter_rows()}


def test_attempts_first_and_last_seen(world: World) -> None:
    fail(world, "video000", permanent=False)
    time.sleep(0.01)
    fail(world, "video000", permanent=False)
    (row,) = quarantined(world.store, ALL)
    assert row["attempts"] == 2 and row["first_s"] < row["at_s"]


def test_what_was_overcome_or_replaced_is_not_in_quarantine(world: World) -> None:
    for video_id in ("video000", "video001"):
        fail(world, video_id, permanent=False)
        fail(world, video_id, permanent=False, encoder="clip", fingerprint=CLIP.fingerprint)
    assert held(world) == ["video000", "video000", "video001", "video001"]
    world.add("video001", content="v2")
    world.run()  # video0 succeeds, video1 is another file now
    assert held(world) == []


def test_retry_keeps_the_count_and_release_forgets(world: World) -> None:
    for video_id in ("video000", "video001", "video002"):
        fail(world, video_id)
    assert ("video000", "failed_before", False) in statuses(world)
    assert settle(world.store, quarantined(world.store, QuarantineFilter(video_id="video000")), "retry") == 1
    assert settle(world.store, quarantined(world.store, QuarantineFilter(video_id="video001")), "release") == 1
    found = statuses(world)
    assert {
        ("video000", "failed_before", True),
        ("video001", "new", True),
        ("video002", "failed_before", False),
    } <= found
    assert held(world) == ["video000", "video002"]
    assert settle(world.store, quarantined(world.store, QuarantineFilter(video_id="video000")), "retry") == 0
    for video_id in ("video000", "video001"):
        fail(world, video_id)
    attempts = {row["video_id"]: row["attempts"] for row in quarantined(world.store, ALL)}
    assert attempts == {"video000": 2, "video001": 1, "video002": 1}


def test_what_every_extraction_looks_at_anyway_can_only_be_released(world: World) -> None:
    rejected = {"video_id": "twice", "uri": "/v/twice.mp4", "stage": "list", "reason": "duplicate_id", "message": "2"}
    world.store.commit_failures([rejected | {"permanent": True}])
    rows = quarantined(world.store, ALL)
    assert settle(world.store, rows, "retry") == 0 and settle(world.store, rows, "release") == 1
    assert held(world) == []


def test_filters(world: World) -> None:
    fail(world, "video000")
    fail(world, "video001", reason="unreadable")
    assert held(world, QuarantineFilter(reason="unreadable")) == ["video001"]
    assert held(world, QuarantineFilter(video_id="*0")) == ["video000"]
    assert held(world, QuarantineFilter(uri="/v/video001*")) == ["video001"]
    assert held(world, QuarantineFilter(since="2020-01-01", until="2099-01-01T00:00+02:00")) == ["video000", "video001"]
    assert held(world, QuarantineFilter(until="2020-01-01")) == []


def test_a_dataset_is_a_folder_or_bucket_of_the_source(world: World) -> None:
    for name, day in (("set-a", "2026-01-01"), ("set-b", "2026-01-02")):
        for number, reason in enumerate(("truncated", "timeout")):
            row = {"video_id": f"{name}/{number}", "uri": f"s3://films/{name}/{number}.mp4", "reason": reason}
            at_s = datetime.fromisoformat(f"{day}T12:00+00:00").timestamp() + number
            shared = {name: "" for name in FAILURES} | {"stage": "decode", "permanent": True, "attempts": 1}
            world.store.append_failures([shared | row | {"at_s": at_s}])
    assert held(world, QuarantineFilter(uri="s3://films/set-a/*")) == ["set-a/0", "set-a/1"]
    assert held(world, QuarantineFilter(video_id="set-b/*", reason="timeout")) == ["set-b/1"]
    assert held(world, QuarantineFilter(uri="*/set-?/*", since="2026-01-02", reason="truncated")) == ["set-b/0"]
    assert held(world, QuarantineFilter(since="2026-01-01T12:00:01+00:00", until="2026-01-02")) == ["set-a/1"]


@pytest.mark.parametrize("values", [{"reason": "cursed"}, {"since": "yesterday"}])
def test_a_wrong_filter_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(UserError, match="expected"):
        QuarantineFilter(**values)
