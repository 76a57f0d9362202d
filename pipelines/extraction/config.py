"""Configuration of `jobs.extract` and `jobs.plan`."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Discriminator

from hvlm.config import Config, require
from hvlm.encoders.config import C3DConfig, EncoderConfig
from hvlm.video.packets import BackendName
from infra.cluster import ClusterConfig
from pipelines.extraction.frame_cache import FrameCacheConfig
from pipelines.extraction.sandbox import DecodeLimits
from pipelines.store.publish import PublishConfig
from pipelines.store.sources import SourceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeConfig(Config):
    """How videos are decoded."""

    backend: BackendName = "pyav"
    segment_s: float = 60.0
    """A long video is decoded in segments of this many seconds; one segment's frames are what a worker holds."""
    on_truncated: Literal["quarantine", "salvage"] = "quarantine"
    """A video that is damaged or cut: into quarantine whole, or its part before the damage is extracted and marked."""
    cache: FrameCacheConfig | None = None
    """Keep a small copy of every video and decode that from then on; null: none. Features of copies have other
    fingerprints."""
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    """What a decoder may use before it is killed and its video goes into quarantine."""

    def __post_init__(self) -> None:
        require(
            self.segment_s >= 1,
            what="decode.segment_s",
            got=self.segment_s,
            expected="at least 1 s",
            do="set e.g. segment_s: 60",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractResources(Config):
    """What each stage asks of the cluster. None: chosen from the cluster (see `pipelines/extraction/resources.py`)."""

    decode_num_cpus: float = 1.0
    encoder_actors: int | None = None
    encoder_num_cpus: float | None = None
    encoder_num_gpus: float | None = None
    encoder_threads: int | None = None
    segments_per_batch: int = 4
    segments_per_tar: int = 8

    def __post_init__(self) -> None:
        require(
            self.decode_num_cpus > 0,
            what="resources.decode_num_cpus",
            got=self.decode_num_cpus,
            expected="above 0",
            do="set e.g. 1",
        )
        for name in ("encoder_num_cpus", "encoder_num_gpus"):
            value = getattr(self, name)
            require(
                value is None or value >= 0,
                what=f"resources.{name}",
                got=value,
                expected="0 or more",
                do=f"set e.g. {name}: 0.5",
            )
        for name in ("encoder_actors", "encoder_threads", "segments_per_batch", "segments_per_tar"):
            value = getattr(self, name)
            require(
                value is None or value >= 1,
                what=f"resources.{name}",
                got=value,
                expected="at least 1",
                do=f"set e.g. {name}: 1",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractConfig(Config):
    """One extraction: which videos, through which encoders, into which store."""

    store_uri: str
    source: SourceConfig
    encoders: dict[str, Annotated[EncoderConfig, Discriminator("kind")]]
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    resources: ExtractResources = field(default_factory=ExtractResources)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    commit_interval_s: float = 5.0
    max_failed_fraction: float = 0.5
    """The run ends with exit code 1 when more than this share of the planned videos (and more than 10 videos) fail."""
    retry_failed: bool = False

    @property
    def span_encoders(self) -> frozenset[str]:
        """The encoders that take rows of the annotated spans alone."""
        return frozenset(
            name
            for name, encoder in self.encoders.items()
            if (encoder.only_spans if isinstance(encoder, C3DConfig) else encoder.sampling.kind == "spans")
        )

    @property
    def samples_spans(self) -> bool:
        """Whether an encoder takes rows of the annotated spans alone."""
        return bool(self.span_encoders)

    def __post_init__(self) -> None:
        require(
            bool(self.encoders),
            what="encoders",
            got="none",
            expected="at least one",
            do="add e.g. encoders: {clip: {kind: clip, …}}",
        )
        for name in self.encoders:
            require(
                re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None,
                what="encoders",
                got=f"the name '{name}'",
                expected="lower-case letters, digits and _, a letter first",
                do="rename it; the name becomes a folder of the store",
            )
        require(
            not self.samples_spans or self.source.annotations_uri is not None,
            what="source.annotations_uri",
            got="none",
            expected="an annotation file: an encoder samples its spans",
            do="set it, or sampling.kind: fps (of c3d only_spans: false)",
        )
        require(
            0 <= self.max_failed_fraction <= 1,
            what="max_failed_fraction",
            got=self.max_failed_fraction,
            expected="a fraction from 0 to 1",
            do="set e.g. 0.1",
        )
        require(
            self.commit_interval_s > 0,
            what="commit_interval_s",
            got=self.commit_interval_s,
            expected="above 0",
            do="set e.g. 5",
        )
