"""Chooses what each stage asks of the cluster where the config leaves it open.

"This laptop" (no GPU): decode tasks take 1 CPU each, so one runs per core; encoder actors take no logical CPU,
because one that reserves even 0.1 CPU leaves a 2-core machine with a single decode (measured: 0.38 of the raw decode
limit instead of 0.66 to 0.76), and use the cores that the decoders leave idle (`spare_cpus`). A larger cluster without
GPUs starts with one actor of each encoder, and Ray Data adds more while batches wait for them. "8-GPU node": one actor
of each encoder per GPU, sharing it in equal parts; decode fills the CPUs.
"""

import os
from dataclasses import dataclass

from pipelines.extraction.config import ExtractResources

THREADS_PER_ACTOR = 4  # where several actors share a cluster's CPUs; beyond it a small batch gains little


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderThreads:
    """How few and how many CPU threads one encoder actor may use; equal where the config gives the number."""

    least: int
    most: int

    def within(self, spare: int) -> int:
        """Return the allowed number that is nearest to the CPUs that are spare."""
        return min(self.most, max(self.least, spare))


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPool:
    """An encoder's actor pool: how many actors it starts with and may grow to, and what each one asks for."""

    min_actors: int
    max_actors: int
    num_cpus: float
    num_gpus: float
    threads: EncoderThreads


def encoder_pool(config: ExtractResources, cluster: dict[str, float], num_encoders: int) -> EncoderPool:
    """Return the pool of each encoder on a cluster with these total resources (`ray.cluster_resources()`)."""
    gpus = int(cluster.get("GPU", 0))
    on_gpu = gpus > 0 if config.encoder_num_gpus is None else config.encoder_num_gpus > 0
    num_gpus = (1.0 / num_encoders if on_gpu else 0.0) if config.encoder_num_gpus is None else config.encoder_num_gpus
    least = config.encoder_actors or (max(1, gpus) if on_gpu else 1)
    growing = not on_gpu and config.encoder_actors is None
    most = max(least, int(cluster.get("CPU", 1)) // THREADS_PER_ACTOR) if growing else least
    most_threads = THREADS_PER_ACTOR if on_gpu or most > least else len(os.sched_getaffinity(0))
    threads = config.encoder_threads
    return EncoderPool(
        min_actors=least,
        max_actors=most,
        num_cpus=config.encoder_num_cpus or 0.0,
        num_gpus=num_gpus,
        threads=EncoderThreads(least=threads or 1, most=threads or most_threads),
    )
