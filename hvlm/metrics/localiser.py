"""A localisation head that is fitted to the frozen rows of some videos, and the segments it finds in others.

The rows go through a pyramid that is frozen too: the model's own, or one of means. Train videos fit the head, dev
videos choose the step at which it is taken.

Shapes: B videos of a batch, T rows, S segments, D width of the rows, P places of a `NodeGrid`, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvlm.config import Config, require
from hvlm.losses.detection import TrueSegments, assign_segments, localisation_losses
from hvlm.metrics.localisation import Segments, evaluate_detection
from hvlm.metrics.proposals import ProposalConfig, VideoSegments, segments_of_videos, suppress
from hvlm.models.attention import padded
from hvlm.models.localisation_head import (
    LocalisationHead,
    LocalisationHeadConfig,
    NodeGrid,
    decode_offsets,
    node_grid,
)
from hvlm.models.optimization import parameter_groups, warmup_cosine
from hvlm.models.pyramid import AttentionPyramid

Floats = NDArray[np.float64]
_WARMUP_SHARE, _LAST_LR = 0.05, 0.01  # of the steps, of the learning rate
_MIN_SCORE = 1e-3  # what a head says of nothing: a tenth of its prior


@dataclass(frozen=True, slots=True, kw_only=True)
class LocaliserConfig(Config):
    """How a localisation head is fitted; the same values serve every kind of features that stands in one table.

    Args:
        head: its sizes.
        num_steps: of AdamW, on `batch_size` videos each; the learning rate rises briefly and falls along a cosine.
        num_checks: how often, evenly over the steps, the head is measured on dev; the best one is taken.
        max_candidates: segments of a video that soft-NMS sees, best first.
    """

    head: LocalisationHeadConfig = field(default_factory=LocalisationHeadConfig)
    num_steps: int = 300
    batch_size: int = 8
    lr: float = 3e-3
    weight_decay: float = 0.05
    num_checks: int = 4
    max_candidates: int = 300

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "num_checks", "max_candidates"):
            value = getattr(self, name)
            require(value >= 1, what=f"localiser.{name}", got=value, expected="1 or more", do=f"raise {name}")
        require(self.lr > 0, what="localiser.lr", got=self.lr, expected="above 0", do="set e.g. 0.001")
        require(
            self.weight_decay >= 0,
            what="localiser.weight_decay",
            got=self.weight_decay,
            expected="0 or more",
            do="set e.g. 0.05",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocaliserVideo:
    """One video as a localiser reads it.

    Args:
        key: of the video.
        rows_TD: frozen rows; cell_T2: [start, end) in seconds that each stands for (`row_cells`).
        duration_s: found segments are cut to [0, duration_s).
        span_S2, label_S: true segments; none where they are to be found.
    """

    key: str
    rows_TD: NDArray[np.float32]
    cell_T2: Floats
    duration_s: float
    span_S2: Floats = field(default_factory=lambda: np.empty((0, 2)))
    label_S: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Localiser:
    """A fitted head for nodes that are standardised by the training rows.

    `dev`: average mAP on dev by the steps at which it was measured; `step`: the one that was taken.
    """

    head: LocalisationHead
    mean_D: Tensor
    std_D: Tensor
    max_candidates: int
    dev: dict[int, float]
    step: int

    @torch.inference_mode()
    def find(self, video: LocaliserVideo, pyramid: AttentionPyramid, proposals: ProposalConfig) -> VideoSegments:
        """Return the scored segments of one video, after soft-NMS within each class.

        Args:
            video: its rows.
            pyramid: the one of the fit.
            proposals: soft-NMS, and how many segments stay.
        """
        grid = self.grid([video], pyramid)
        logits_BPC, offset_BP2 = self.head(grid)
        real_P = grid.mask_BP[0]
        score_NC = logits_BPC[0, real_P].sigmoid().double().cpu().numpy()
        span_N2 = decode_offsets(offset_BP2, grid)[0, real_P].double().cpu().numpy().clip(0.0, video.duration_s)
        best = np.argsort(-score_NC, axis=None, kind="stable")[: self.max_candidates]
        node, label = np.unravel_index(best, score_NC.shape)
        kept = (score_NC[node, label] >= _MIN_SCORE) & (span_N2[node, 1] > span_N2[node, 0])
        node, label = node[kept], label[kept]
        return suppress(VideoSegments(label.astype(np.int64), span_N2[node], score_NC[node, label]), proposals)

    def grid(self, videos: Sequence[LocaliserVideo], pyramid: AttentionPyramid) -> NodeGrid:
        """Return the standardised nodes of some videos, padded to the longest."""
        return _grid(videos, pyramid, self.mean_D, self.std_D)


@dataclass(frozen=True, slots=True)
class LocaliserFit:
    """What a fit needs beside the videos. `seed`: of the head's first weights, its dropout and the batches."""

    pyramid: AttentionPyramid
    num_classes: int
    config: LocaliserConfig
    proposals: ProposalConfig
    seed: int


def fit_localiser(train: Sequence[LocaliserVideo], dev: Sequence[LocaliserVideo], fit: LocaliserFit) -> Localiser:
    """Return the head with the highest average mAP on dev among those at the checks, the earlier one on a tie.

    Args:
        train, dev: videos with their true segments.
        fit: the pyramid, which stays as it is, and how to train.

    Raises:
        ValueError: no training videos, or no true segment in dev.
    """
    if not train or not any(len(video.label_S) for video in dev):
        raise ValueError(f"a localiser needs videos: {len(train)} for training, and dev ones with true segments")
    config, device = fit.config, next(fit.pyramid.parameters()).device
    mean_D, std_D = (moment.to(device) for moment in _moments(train))
    # The caller's random numbers go on as if nothing had been drawn here.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(fit.seed)
        head = LocalisationHead(len(mean_D), fit.num_classes, config.head).to(device)
        optimizer = torch.optim.AdamW([dict(group) for group in parameter_groups(head, config.weight_decay)])
        current = Localiser(head, mean_D, std_D, config.max_candidates, {}, 0)
        weights, chosen = head.state_dict(), 0
        for step in range(1, config.num_steps + 1):
            for group in optimizer.param_groups:
                warmup = round(_WARMUP_SHARE * config.num_steps)
                group["lr"] = config.lr * warmup_cosine(step - 1, config.num_steps, warmup, _LAST_LR)
            batch = [train[i] for i in torch.randperm(len(train))[: config.batch_size].tolist()]
            optimizer.zero_grad()
            _loss(current, batch, fit).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step * config.num_checks // config.num_steps > (step - 1) * config.num_checks // config.num_steps:
                current.dev[step] = _average_map(current, dev, fit)
                if chosen == 0 or current.dev[step] > current.dev[chosen]:
                    weights, chosen = {name: value.clone() for name, value in head.state_dict().items()}, step
    head.load_state_dict(weights)
    return replace(current, head=head.eval(), step=chosen)


def _loss(current: Localiser, batch: Sequence[LocaliserVideo], fit: LocaliserFit) -> Tensor:
    current.head.train()
    grid = current.grid(batch, fit.pyramid)
    device = grid.mask_BP.device
    truth = [
        TrueSegments(torch.from_numpy(video.span_S2).float().to(device), torch.from_numpy(video.label_S).to(device))
        for video in batch
    ]
    targets = assign_segments(grid, truth, fit.num_classes, fit.config.head)
    logits_BPC, offset_BP2 = current.head(grid)
    return localisation_losses(logits_BPC, offset_BP2, targets, grid.mask_BP)["total"]


def _average_map(current: Localiser, videos: Sequence[LocaliserVideo], fit: LocaliserFit) -> float:
    current.head.eval()
    found = [(video.key, current.find(video, fit.pyramid, fit.proposals)) for video in videos]
    return evaluate_detection(segments_of_videos(found), _truth(videos)).average_map()


def _truth(videos: Sequence[LocaliserVideo]) -> Segments:
    return segments_of_videos(
        [(video.key, VideoSegments(video.label_S, video.span_S2, np.ones(len(video.label_S)))) for video in videos]
    )


def _moments(videos: Sequence[LocaliserVideo]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of all rows; a channel that does not change keeps its scale."""
    count = sum(len(video.rows_TD) for video in videos)
    mean_D = sum(video.rows_TD.sum(0, dtype=np.float64) for video in videos) / count
    var_D = sum(((video.rows_TD - mean_D) ** 2).sum(0) for video in videos) / count
    std_D = np.sqrt(var_D)
    return torch.from_numpy(mean_D).float(), torch.from_numpy(np.where(std_D > 1e-9, std_D, 1.0)).float()


@torch.no_grad()
def _grid(videos: Sequence[LocaliserVideo], pyramid: AttentionPyramid, mean_D: Tensor, std_D: Tensor) -> NodeGrid:
    device, longest = mean_D.device, max(len(video.rows_TD) for video in videos)
    rows_BTD = torch.zeros(len(videos), longest, len(mean_D))
    cell_BT2 = torch.zeros(len(videos), longest, 2)
    mask_BT = torch.zeros(len(videos), longest, dtype=torch.bool)
    for place, video in enumerate(videos):
        length = len(video.rows_TD)
        rows_BTD[place, :length] = torch.from_numpy(video.rows_TD)
        cell_BT2[place, :length] = torch.from_numpy(video.cell_T2)
        mask_BT[place, :length] = True
    rows_BTD, cell_BT2, mask_BT = rows_BTD.to(device), cell_BT2.to(device), mask_BT.to(device)
    grid = node_grid(pyramid(rows_BTD, cell_BT2[..., 0], mask_BT), cell_BT2, mask_BT)
    return grid._replace(nodes_BPD=padded((grid.nodes_BPD - mean_D) / std_D, grid.mask_BP))
