"""Every sample exactly once: conservation by key, order kept, errors of an actor as they are."""

from dataclasses import dataclass

import pytest

from infra import cluster
from pipelines.evaluation.hierarchical_vlm.embedding import Embedder, EmbedSetup
from pipelines.evaluation.spread import (
    ActorPool,
    ConservationError,
    EvaluateResources,
    check_conservation,
    device_of,
    embedders,
    in_order_of,
)
from pipelines.store.manifest import open_manifest
from pipelines.training.checkpoints import find_checkpoint
from tests.pipelines.evaluation.planted_store import source_of


@dataclass
class Result:
    key: str


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (["a"], "1 samples missing and 0 too many of 2"),
        (["a", "b", "b"], "0 samples missing and 1 too many"),
        (["a", "c"], "1 samples missing and 1 too many"),
    ],
)
def test_lost_doubled_and_foreign_samples_fail(found, message):
    check_conservation(["a", "b"], ["b", "a"], "embed")
    with pytest.raises(ConservationError, match=message):
        check_conservation(["a", "b"], found, "embed")


def test_results_are_put_into_the_order_of_the_rows():
    assert [r.key for r in in_order_of([{"key": "b"}, {"key": "a"}], [Result("a"), Result("b")])] == ["b", "a"]


def _setup(planted, checkpoint_uri=None):
    return EmbedSetup(
        checkpoint_uri=checkpoint_uri or find_checkpoint(planted[1]).uri,
        source=source_of(planted[0]),
        video_embedding="top",
        rows_per_video=10,
        rows_per_forward=1024,
        device="cpu",
        threads=1,
    )


def test_pool_embeds_every_row_once_and_in_order(planted, ray_cluster):
    rows = list(open_manifest(planted[0], ["clip", "c3d"]).frame.iter_rows(named=True))[:9]
    resources = EvaluateResources(num_actors=2, num_cpus_per_actor=0.5, videos_per_task=2)
    assert device_of(resources) == "cpu"
    with ActorPool(Embedder, _setup(planted), resources) as pool:
        assert [record.key for record in pool.map(rows, "embed")] == [row["key"] for row in rows]
        # the same row twice is a plan that counts a sample twice
        with pytest.raises(ConservationError):
            check_conservation(
                [row["key"] for row in rows], [r.key for r in pool.map([*rows, rows[0]], "embed")], "embed"
            )


def test_an_autoscaling_cluster_counts_with_what_it_can_become(ray_cluster, monkeypatch):
    """Nodes with GPUs start when they are asked for; a cluster that is still small must not mean CPU."""
    monkeypatch.setattr(cluster.ray_state, "get_max_resources_from_cluster_config", lambda: {"CPU": 64, "GPU": 4})
    assert device_of(EvaluateResources()) == "cuda"
    assert embedders(EvaluateResources()) == ({"CPU": 1.0, "GPU": 1.0}, 4)
    assert embedders(EvaluateResources(num_gpus_per_actor=0.0)) == ({"CPU": 1.0, "GPU": 0.0}, 32)
    assert embedders(EvaluateResources(num_gpus_per_actor=0.5, num_actors=3)) == ({"CPU": 1.0, "GPU": 0.5}, 3)


def test_actors_of_many_cpus_are_as_many_as_have_room(ray_cluster, monkeypatch):
    """By default, 3 CPUs each on 4 CPUs is one actor: a second one would never start."""
    monkeypatch.setattr(cluster.ray_state, "get_max_resources_from_cluster_config", lambda: {"CPU": 4})
    assert embedders(EvaluateResources(num_cpus_per_actor=3.0)).num == 1
