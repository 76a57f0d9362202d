"""Pools chosen from the cluster."""

import os

from pipelines.extraction.config import ExtractResources
from pipelines.extraction.resources import EncoderThreads, encoder_pool


def test_a_laptop_keeps_every_core_for_decoding() -> None:
    pool = encoder_pool(ExtractResources(), {"CPU": 2.0}, num_encoders=2)
    assert (pool.min_actors, pool.max_actors, pool.num_cpus, pool.num_gpus) == (1, 1, 0.0, 0.0)
    assert pool.threads == EncoderThreads(least=1, most=len(os.sched_getaffinity(0)))


def test_a_gpu_node_shares_each_gpu_between_the_encoders() -> None:
    pool = encoder_pool(ExtractResources(), {"CPU": 96.0, "GPU": 8.0}, num_encoders=2)
    assert (pool.min_actors, pool.max_actors, pool.num_gpus, pool.threads.most) == (8, 8, 0.5, 4)


def test_the_config_wins() -> None:
    resources = ExtractResources(encoder_actors=3, encoder_num_gpus=1.0, encoder_num_cpus=2.0, encoder_threads=4)
    pool = encoder_pool(resources, {"CPU": 8.0}, num_encoders=1)
    assert (pool.min_actors, pool.max_actors, pool.num_cpus, pool.num_gpus) == (3, 3, 2.0, 1.0)
    assert pool.threads == EncoderThreads(least=4, most=4)


def test_a_cluster_without_gpus_may_grow_its_pools() -> None:
    pool = encoder_pool(ExtractResources(), {"CPU": 64.0}, num_encoders=2)
    assert (pool.min_actors, pool.max_actors, pool.threads.most) == (1, 16, 4)
    assert encoder_pool(ExtractResources(encoder_actors=2), {"CPU": 64.0}, num_encoders=2).max_actors == 2


def test_threads_stay_between_the_fewest_and_the_most() -> None:
    threads = EncoderThreads(least=2, most=4)
    assert [threads.within(spare) for spare in (1, 2, 3, 4, 90)] == [2, 2, 3, 4, 4]
