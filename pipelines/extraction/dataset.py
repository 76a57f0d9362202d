"""The extraction as a Ray Data pipeline: a list of stages.

    work rows ──1:N──► decode ──1:1──► encode (a pool per encoder) ──N:1 file──► stage ──► outcomes, to the driver

Paths travel, never video bytes; frames travel as flat uint8 values in blocks of tens of MB. `CheckpointConfig`,
`max_errored_blocks` and `write_webdataset` are not used: each can lose or double clips without an error (ray 2.60).
"""

import logging
from dataclasses import dataclass

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from hvlm.encoders.config import EncoderConfig
from infra.cluster import total_resources
from pipelines.extraction.config import ExtractResources
from pipelines.extraction.decode_stage import Decoder
from pipelines.extraction.encode_stage import EncodeStage
from pipelines.extraction.resources import EncoderPool
from pipelines.extraction.staging_stage import StagedEncoder, Stager
from pipelines.extraction.work import work_blocks

# Blocks of tens of MB: small enough that decode streams into encode, large enough that tasks are few.
BLOCK_BYTES = 32 * 2**20
CPUS_PER_STAGER = 8  # one writer of features keeps up with many decoders


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Everything the pipeline needs beside the work rows."""

    decoder: Decoder
    encoders: dict[str, EncoderConfig]
    store_uri: str
    run_id: str
    staged: dict[str, StagedEncoder]
    pool: EncoderPool
    resources: ExtractResources


def extraction_dataset(work: pa.Table, stages: Stages) -> Dataset:
    """Return the lazy pipeline over the work rows; iterating it runs it."""
    # Its notes, ours say better; its errors are raised, and told once, by the job.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.raise_original_map_exception = True  # else a full disk arrives here as Ray's error, without what to do
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    resources = stages.resources
    num_cpus = total_resources().get("CPU", 1.0)
    dataset = ray.data.from_arrow(work_blocks(work, num_cpus))
    # 1:N, CPU tasks. A whole CPU each: decoding is the CPU-bound part.
    dataset = dataset.map_batches(
        stages.decoder, batch_size=1, batch_format="pyarrow", zero_copy_batch=True, num_cpus=resources.decode_num_cpus
    )
    # 1:1, one actor pool per encoder: the model stays loaded. A batch of several segments fills the encoder's own
    # batch.
    for name, config in stages.encoders.items():
        dataset = dataset.map_batches(
            EncodeStage,
            fn_constructor_args=(name, config, stages.pool.threads),
            batch_size=resources.segments_per_batch,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(min_size=stages.pool.min_actors, max_size=stages.pool.max_actors),
            num_cpus=stages.pool.num_cpus,
            num_gpus=stages.pool.num_gpus,
        )
    # N:1 file, light (features are small): no CPU reserved, so that decoding keeps every core; actors, because tasks
    # that reserve none make Ray start and end processes all the time, and each imports for seconds.
    return dataset.map_batches(
        Stager,
        fn_constructor_kwargs={"store_uri": stages.store_uri, "run_id": stages.run_id, "encoders": stages.staged},
        batch_size=resources.segments_per_tar,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ActorPoolStrategy(min_size=1, max_size=max(1, int(num_cpus) // CPUS_PER_STAGER)),
        num_cpus=0,
    )
