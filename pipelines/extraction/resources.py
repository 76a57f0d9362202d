"""Chooses what each stage asks of the cluster where the config leaves it open.

"This laptop" (no GPU): decode tasks take 1 CPU each, so one runs per core; encoder actors take no logical CPU,
because one that reserves even 0.1 CPU leaves a 2-core machine with a single decode (measured: 0.38 of the raw decode
limit instead of 0.66 to 0.76). "8-GPU node": one actor of each encoder per GPU, sharing it in equal parts; decode
fills the CPUs.
"""

import os
from dataclasses import dataclass

from pipelines.extraction.config import ExtractResources


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPool:
    """An encoder's actor pool: how many actors, and what each one asks for."""

    num_actors: int
    num_cpus: float
    num_gpus: float
    num_threads: int | None


def encoder_pool(config: ExtractResources, cluster: dict[str, float], num_encoders: int) -> EncoderPool:
    """Return the pool of each encoder on a cluster with these total resources (`ray.cluster_resources()`)."""
    gpus = int(cluster.get("GPU", 0))
    on_gpu = gpus > 0 if config.encoder_num_gpus is None else config.encoder_num_gpus > 0
    num_gpus = (1.0 / num_encoders if on_gpu else 0.0) if config.encoder_num_gpus is None else config.encoder_num_gpus
    return EncoderPool(
        num_actors=config.encoder_actors or (max(1, gpus) if on_gpu else 1),
        num_cpus=config.encoder_num_cpus or 0.0,
        num_gpus=num_gpus,
        num_threads=config.encoder_threads or (None if on_gpu else os.cpu_count()),
    )
