"""Configuration of an evaluation of HierarchicalVLM."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hvlm.config import Config
from hvlm.encoders.config import ClipConfig
from hvlm.metrics.localiser import LocaliserConfig
from hvlm.metrics.proposals import ProposalConfig
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.hierarchical_vlm.embedding import VideoEmbedding


@dataclass(frozen=True, slots=True, kw_only=True)
class HierarchicalVLMEvaluateConfig(EvaluateConfig, Config):
    """See `EvaluateConfig` for the rest.

    Args:
        video_embedding: what probes read of ours: the pyramid's top node, the mean row, or both.
        text_encoder: null is the training's; needed to score raw CLIP retrieval for a model without text.
        proposals: how the frame probe's probabilities become segments; soft-NMS and the limit hold for the head too.
        localiser: the localisation head that is fitted to the frozen pyramid.
        max_probe_rows: rows over all videos that frame probes and ranks see; longer videos are thinned evenly. The
            localisation head sees whole videos, of each split as many as have so many rows.
        num_timelines: videos whose truth and predictions are drawn.
    """

    # Of a baseline the HierarchicalVLM inside it is evaluated.
    TRAINED_AS: ClassVar[tuple[str, ...]] = ("hierarchical_vlm", "supervised", "moco")

    system: Literal["hierarchical_vlm"] = "hierarchical_vlm"
    video_embedding: VideoEmbedding = "top"
    text_encoder: ClipConfig | None = None
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    localiser: LocaliserConfig = field(default_factory=LocaliserConfig)
    max_probe_rows: int = 100_000
    num_timelines: int = 4

    def __post_init__(self) -> None:
        EvaluateConfig.__post_init__(self)  # super() does not find the class that slots=True makes anew
        self.require_least(max_probe_rows=1, num_timelines=0)
