"""EgoNCE over the global batch: clips with captions (child), aggregated clips and captions with summaries (parent).

The sum over positives stands inside the logarithm, so it is enough that one positive scores high; with the own pair as
the only positive it is the symmetric InfoNCE. The two directions are summed, not halved.

Shapes: N rows of the global batch, rank 0's first; E width of the joint space; A verb classes; O noun classes.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hvlm.config import Config, require
from hvlm.losses.batch import masked

TagOverlap = Literal["both", "noun", "verb", "none"]

# Finite, so that a row without a single pair has the gradient 0 and not NaN; far below any cosine / temperature.
_OUT = -1e30


@dataclass(frozen=True, slots=True, kw_only=True)
class EgoNCEConfig(Config):
    """`temperature` is fixed, not learned. `tags`: what two captions must share to be positives of each other (a verb
    and a noun, one of them, or `none`: only the own pair is positive)."""

    temperature: float = 0.05
    tags: TagOverlap = "both"

    def __post_init__(self) -> None:
        require(
            self.temperature > 0,
            what="ego_nce.temperature",
            got=self.temperature,
            expected="above 0",
            do="e.g. temperature: 0.05",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentTermsConfig(Config):
    """Which pairs the parent loss contrasts; a term that is off is left out of the graph.

    `caption_video` needs no summary: alone it is the ablation without summaries.
    """

    summary_video: bool = True
    summary_caption: bool = True
    caption_video: bool = False

    def __post_init__(self) -> None:
        require(
            self.summary_video or self.summary_caption or self.caption_video,
            what="terms",
            got="all false",
            expected="at least one term",
            do="set terms.summary_video: true",
        )


class EgoNCE(NamedTuple):
    """Both directions, float32 scalars, and the mean number of positives of a row."""

    text_to_video: Tensor
    video_to_text: Tensor
    positives_per_row: Tensor

    @property
    def total(self) -> Tensor:
        """The sum of both directions."""
        return self.text_to_video + self.video_to_text


class ChildRows(NamedTuple):
    """The global batch of the child level.

    text_NE, video_NE: projected, not normalised; row n of one belongs to row n of the other. verbs_NA, nouns_NO:
    multi-hot. valid_N: bool, False on rows that only fill the batch. caption_N: int64, equal for equal captions **over
    all ranks**: then they are positives of each other, tags or not; None where only tags say so.
    """

    text_NE: Tensor
    video_NE: Tensor
    verbs_NA: Tensor
    nouns_NO: Tensor
    valid_N: Tensor
    caption_N: Tensor | None = None


class ParentRows(NamedTuple):
    """The global batch of the parent level.

    video_NE, captions_NE: aggregated, not normalised; summary_NE: projected. valid_N: bool, False on rows that only
    fill the batch. has_captions_N: bool. own_summary_N: bool, False where the summary is made of the captions: against
    them it would be found by its words. For `parent_positives`: video_N and summary_N int64, equal for equal videos
    and equal summaries **over all ranks**; span_s_N2 the part of the video that the summary tells of.
    """

    video_NE: Tensor
    captions_NE: Tensor
    summary_NE: Tensor
    valid_N: Tensor
    has_captions_N: Tensor
    own_summary_N: Tensor
    video_N: Tensor
    span_s_N2: Tensor
    summary_N: Tensor


def tag_positives(verbs_NA: Tensor, nouns_NO: Tensor, tags: TagOverlap) -> Tensor:
    """Pairs that share what `tags` asks for, and each row with itself.

    Args:
        verbs_NA: multi-hot, any dtype; a row without a tag shares nothing.
        nouns_NO: the same for nouns.
        tags: see `EgoNCEConfig`.

    Returns:
        bool (N, N), symmetric, True on the diagonal.
    """
    own_NN = torch.eye(verbs_NA.shape[0], dtype=torch.bool, device=verbs_NA.device)
    if tags == "none":
        return own_NN
    if tags == "verb":
        return own_NN | _share(verbs_NA)
    if tags == "noun":
        return own_NN | _share(nouns_NO)
    return own_NN | (_share(verbs_NA) & _share(nouns_NO))


def parent_positives(rows: ParentRows) -> Tensor:
    """Pairs of overlapping parts of one video or with the same summary, and each row with itself: two annotators may
    have told of the same minutes.

    Returns:
        bool (N, N), symmetric, True on the diagonal.
    """
    start_N, end_N = rows.span_s_N2.unbind(-1)
    overlap_NN = (start_N[:, None] < end_N[None]) & (start_N[None] < end_N[:, None])
    same_part_NN = (rows.video_N[:, None] == rows.video_N[None]) & overlap_NN
    same_summary_NN = rows.summary_N[:, None] == rows.summary_N[None]
    own_NN = torch.eye(len(start_N), dtype=torch.bool, device=start_N.device)
    return own_NN | same_part_NN | same_summary_NN


def cosine_matrix(text_NE: Tensor, video_NE: Tensor, valid_N: Tensor) -> Tensor:
    """Cosines of all pairs in float32, under autocast too; 0 where a row is not valid, whatever it holds.

    Returns:
        (N, N), rows text, columns video.
    """
    with torch.autocast(text_NE.device.type, enabled=False):
        text_unit_NE, video_unit_NE = (
            functional.normalize(masked(x_NE, valid_N), dim=-1, eps=1e-8) for x_NE in (text_NE, video_NE)
        )
        return text_unit_NE @ video_unit_NE.T


def ego_nce(similarity_NN: Tensor, positive_NN: Tensor, temperature: float, valid_N: Tensor) -> EgoNCE:
    """−mean log(sum over positives of exp(s / temperature) / sum over all), in each direction.

    Args:
        similarity_NN: cosines, rows text, columns video; float32 or float64.
        positive_NN: bool, symmetric, True on the diagonal.
        temperature: above 0.
        valid_N: bool; a row that is not valid is neither anchor, positive nor negative.

    Returns:
        finite at any temperature; zeros without a valid row.

    Source: Lin et al. 2022 (EgoVLP), EgoNCE; its scene-aware negatives are further rows of the batch here.
    """
    pair_NN = valid_N[:, None] & valid_N[None]
    logits_NN = (similarity_NN / temperature).masked_fill(~pair_NN, _OUT)
    positive_NN = positive_NN & pair_NN
    weight_N = valid_N.to(logits_NN.dtype)
    count = weight_N.sum().clamp_min(1.0)
    # The logarithm of a softmax subtracts the logsumexp over all, row by row; nothing overflows at a low temperature.
    text_to_video_N = -logits_NN.log_softmax(1).masked_fill(~positive_NN, _OUT).logsumexp(1)
    video_to_text_N = -logits_NN.log_softmax(0).masked_fill(~positive_NN, _OUT).logsumexp(0)
    return EgoNCE(
        text_to_video=(torch.where(valid_N, text_to_video_N, 0.0)).sum() / count,
        video_to_text=(torch.where(valid_N, video_to_text_N, 0.0)).sum() / count,
        positives_per_row=positive_NN.sum() / count,
    )


def child_loss(rows: ChildRows, config: EgoNCEConfig) -> dict[str, Tensor]:
    """EgoNCE of clips and captions: `total`, its two directions and `positives_per_row` (no gradient).

    Args:
        rows: of all ranks.
        config: temperature and what makes two captions positives.
    """
    positive_NN = tag_positives(rows.verbs_NA, rows.nouns_NO, config.tags)
    if rows.caption_N is not None and config.tags != "none":
        positive_NN = positive_NN | (rows.caption_N[:, None] == rows.caption_N[None])
    similarity_NN = cosine_matrix(rows.text_NE, rows.video_NE, rows.valid_N)
    loss = ego_nce(similarity_NN, positive_NN, config.temperature, rows.valid_N)
    return {"total": loss.total, **loss._asdict()}


def parent_loss(
    rows: ParentRows, positive_NN: Tensor, config: EgoNCEConfig, terms: ParentTermsConfig
) -> dict[str, Tensor]:
    """The terms that are on, by name, and their sum `total`.

    A sample without captions takes no part in the terms with captions: its summary in their place would be contrasted
    with itself.

    Args:
        rows: of all ranks.
        positive_NN: `parent_positives`, or'ed with `tag_positives` of the summaries where these have tags.
        config: temperature.
        terms: which pairs are contrasted.
    """
    told_N = rows.valid_N & rows.has_captions_N
    sides = {
        "summary_video": (rows.summary_NE, rows.video_NE, rows.valid_N),
        "summary_caption": (rows.summary_NE, rows.captions_NE, told_N & rows.own_summary_N),
        "caption_video": (rows.captions_NE, rows.video_NE, told_N),
    }
    losses = {}
    for name, (text_NE, video_NE, valid_N) in sides.items():
        if getattr(terms, name):
            similarity_NN = cosine_matrix(text_NE, video_NE, valid_N)
            losses[name] = ego_nce(similarity_NN, positive_NN, config.temperature, valid_N).total
    return {"total": torch.stack(list(losses.values())).sum(), **losses}


def _share(tags_NK: Tensor) -> Tensor:
    tags_NK = tags_NK.float()
    return (tags_NK @ tags_NK.T) > 0
