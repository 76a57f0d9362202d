import pytest

from hvlm.data.splits import SplitConfig, order_hash
from pipelines.store.plan import complete_staged, make_plan
from tests.pipelines.store.world import BOTH, CLIP, CONFIG, World, column, ids

FAILURE = {"stage": "decode", "reason": "truncated", "message": "m"}


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "store")


def status(plan, encoder="clip"):
    return {
        row["video_id"]: (row["status"], row["runs"]) for row in plan.status.to_dicts() if row["encoder"] == encoder
    }


def fail(world, video_id, **values):
    content = dict(world.store.videos().select("video_id", "content_hash").iter_rows())[video_id]
    world.store.commit_failures([FAILURE | {"video_id": video_id, "content_hash": content, "permanent": True} | values])


def test_every_status(world):
    world.add("done", "changed", "stale", "relabelled", "staged")
    old = BOTH | {"clip": column("clip", 8, version=1)}
    world.add("stale")
    world.snapshot()
    world.stage({"clip": old["clip"]}, skip=[(name, 0) for name in ("done", "changed", "relabelled", "staged")])
    world.publish({"clip": old["clip"]})
    world.stage(skip=[("stale", segment) for segment in range(3)] + [("staged", segment) for segment in range(3)])
    world.publish()
    world.stage({"clip": CLIP}, skip=[("stale", segment) for segment in range(3)])
    world.add("new", "partial", "broken", "flaky")
    world.add("changed", content="v2")
    world.add("relabelled", summary="text")
    world.snapshot()
    others = ("stale", "new", "changed", "broken", "flaky")
    world.stage({"clip": CLIP}, skip=[(name, segment) for name in others for segment in range(3)] + [("partial", 1)])
    fail(world, "broken")
    fail(world, "flaky", permanent=False)
    assert status(world.plan()) == {
        "done": ("done", False),
        "changed": ("changed", True),
        "stale": ("stale", True),
        "relabelled": ("relabelled", False),
        "staged": ("staged", False),
        "new": ("new", True),
        "partial": ("partial", True),
        "broken": ("failed_before", False),
        "flaky": ("failed_before", True),
    }
    counts = world.plan().counts["clip"]
    assert sum(counts.values()) == world.plan().num_videos == 9


def test_todo_lists_what_is_needed_in_an_order_of_ids_alone(world):
    world.add(*ids(6))
    world.snapshot()
    world.stage({"clip": CLIP}, skip=[("video001", 1)])
    plan = world.plan()
    assert plan.todo["video_id"].to_list() == sorted(ids(6), key=order_hash)
    needs = dict(plan.todo.select("video_id", "needs").iter_rows())
    assert needs["video000"] == [{"encoder": "c3d", "staged_segments": []}]
    assert needs["video001"] == [
        {"encoder": "c3d", "staged_segments": []},
        {"encoder": "clip", "staged_segments": [0, 2]},
    ]


def test_segments_of_another_layout_do_not_count_but_whole_videos_do(world):
    world.add("whole", "half")
    world.snapshot()
    world.stage({"clip": CLIP}, skip=[("half", 1)])
    plan = make_plan(world.store.frames(), {"clip": CLIP.fingerprint}, layouts={"clip": "20s"})
    assert status(plan) == {"whole": ("staged", False), "half": ("new", True)}
    assert plan.todo["needs"].to_list() == [[{"encoder": "clip", "staged_segments": []}]]


def test_a_permanent_failure_of_one_encoder_holds_the_video_back(world):
    world.add("a", "b")
    world.snapshot()
    fail(world, "a", encoder="c3d", fingerprint=BOTH["c3d"].fingerprint)
    assert world.plan().todo["video_id"].to_list() == ["b"]
    assert status(world.plan({"clip": CLIP}))["a"] == ("new", True)
    fingerprints = {name: encoder.fingerprint for name, encoder in BOTH.items()}
    again = make_plan(world.store.frames(), fingerprints, retry_failed=True)
    assert set(again.todo["video_id"]) == {"a", "b"}


def test_a_failure_holds_for_its_content_and_fingerprint_only(world):
    world.add("a", "b")
    world.snapshot()
    fail(world, "a")
    fail(world, "b", encoder="clip", fingerprint="another")
    world.add("a", content="mended")
    world.snapshot()
    assert status(world.plan()) == {"a": ("new", True), "b": ("new", True)}


def test_another_split_config_relabels(world):
    world.add(*ids(20))
    world.run()
    fingerprints = {name: encoder.fingerprint for name, encoder in BOTH.items()}
    same = make_plan(world.store.frames(), fingerprints, splits=CONFIG.splits)
    other = make_plan(world.store.frames(), fingerprints, splits=SplitConfig(val_fraction=0.6))
    assert same.counts["clip"]["done"] == 20
    assert other.counts["clip"]["relabelled"] > 0 and other.todo.is_empty()


def test_the_choice_among_double_rows_does_not_depend_on_their_order(world):
    world.add("a")
    world.snapshot()
    world.stage({"clip": CLIP}, run_id="first")
    rows = world.store.staged()
    double = rows.vstack(rows.with_columns(tar=rows["tar"].str.replace("first", "second")))
    assert complete_staged(double).equals(complete_staged(double.reverse()))
    assert complete_staged(double)["tar"].str.contains("first").all()
    assert complete_staged(rows.head(2)).is_empty()
