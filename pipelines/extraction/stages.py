"""What a configuration means for the pipeline: the columns it makes, the layout of segments, the stages' settings."""

import math
import time
import uuid

from hvlm.encoders.registry import describe_encoder
from hvlm.video.decoding import get_backend
from hvlm.video.shrink import copy_identity
from infra.cluster import Bundle, require_resources, total_resources
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.dataset import Stages
from pipelines.extraction.decode_stage import Decoder
from pipelines.extraction.frame_cache import FrameCache
from pipelines.extraction.resources import encoder_pool
from pipelines.extraction.staging_stage import StagedEncoder
from pipelines.store.encoders import EncoderColumn
from pipelines.store.fingerprint import fingerprint
from pipelines.store.staging import SALVAGED

FEATURE_SCHEMA = 1  # raised when the meaning of a stored feature row changes


def encoder_columns(config: ExtractConfig) -> dict[str, EncoderColumn]:
    """Return each encoder's fingerprint, dimension and identity; decoder and sampling are part of it.

    Raises:
        UserError: an encoder cannot make do with the copies of `decode.cache`.
    """
    backend, cache = get_backend(config.decode.backend), config.decode.cache
    columns = {}
    for name, encoder in config.encoders.items():
        described = describe_encoder(encoder)
        identity = {
            **described.identity,
            "decoder": {"backend": backend.name, "version": backend.version},
            "dtype": "float16",
            "feature_schema": FEATURE_SCHEMA,
        }
        if cache is not None:
            cache.check_view(name, described.view)
            identity["cache"] = copy_identity(cache.short_side)
        columns[name] = EncoderColumn(
            fingerprint=fingerprint(identity), dim=described.dim, identity=identity, label=described.label
        )
    return columns


def layout_of(config: ExtractConfig) -> str:
    """Return the name of the way videos are cut into segments; only segments of one layout are put together."""
    return f"segment_s={config.decode.segment_s:g}"


def row_seconds(config: ExtractConfig, salvage: bool) -> float:
    """Return the `segment_s` that `work_table` divides long videos by; infinity: a video is one work row.

    So it is where a worker has to go through the whole video first, to find where it ends or to make its copy: several
    would each do it.
    """
    return math.inf if salvage or config.decode.cache is not None else config.decode.segment_s


def stages_of(
    config: ExtractConfig, columns: dict[str, EncoderColumn], store_uri: str, run_id: str, salvage: bool = False
) -> Stages:
    """Return the settings of the pipeline's stages on the cluster that is connected.

    Args:
        salvage: take what can be decoded of damaged videos.

    Raises:
        UserError: the cluster lacks what the stages ask for.
    """
    pool = encoder_pool(config.resources, total_resources(), len(config.encoders))
    encoder = {"CPU": pool.num_cpus, "GPU": pool.num_gpus}
    require_resources(
        [Bundle({"CPU": config.resources.decode_num_cpus}), Bundle(encoder, pool.min_actors * len(config.encoders))]
    )
    layout = layout_of(config) + (SALVAGED if salvage else "")
    return Stages(
        decoder=Decoder(
            backend=config.decode.backend,
            segment_s=config.decode.segment_s,
            views={name: describe_encoder(encoder).view for name, encoder in config.encoders.items()},
            limits=config.decode.limits,
            salvage=salvage,
            cache=FrameCache.of(config.decode.cache, store_uri) if config.decode.cache else None,
        ),
        encoders=config.encoders,
        store_uri=store_uri,
        run_id=run_id,
        staged={
            name: StagedEncoder(fingerprint=column.fingerprint, layout=layout, dim=column.dim)
            for name, column in columns.items()
        },
        pool=pool,
        resources=config.resources,
    )


def new_run_id() -> str:
    """Return a name for a run that no other has: the time, and some random digits."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
