"""One forward pass of HierVL and its losses over the batches of all ranks.

Rows are gathered as they come (bfloat16 is half the traffic) and compared in float32.
"""

import torch
from torch import Tensor, nn

from hvlm.losses.ego_nce import ChildRows, ParentRows, child_loss, parent_loss, parent_positives, tag_positives
from hvlm.models.hiervl import ChildOutput, HierVLConfig, ParentOutput
from pipelines.training.gather import gather_rows
from pipelines.training.hiervl.samples import ChildPart, ParentPart
from pipelines.training.system import Pass


def run_pass(model: nn.Module, part: ChildPart | ParentPart, config: HierVLConfig) -> Pass:
    """Return the losses of one level's batch.

    Args:
        model: `HierVL`, or its DDP wrapper.
        part: this rank's rows, on the model's device. All ranks must call with the same level at the same time.
        config: temperature, positives and terms.
    """
    return _child(model, part, config) if isinstance(part, ChildPart) else _parent(model, part, config)


def _child(model: nn.Module, part: ChildPart, config: HierVLConfig) -> Pass:
    output: ChildOutput = model(part.batch, "child")
    frame_mask_NT = gather_rows(part.batch.frame_mask_BT)
    rows = ChildRows(
        text_NE=gather_rows(output.text_BE).float(),
        video_NE=gather_rows(output.video_BE).float(),
        verbs_NA=_gather_tags(part.verbs_BA, frame_mask_NT),
        nouns_NO=_gather_tags(part.nouns_BO, frame_mask_NT),
        valid_N=frame_mask_NT.any(1),  # a clip without a row of features teaches nothing
        caption_N=gather_rows(part.caption_B),
    )
    losses = child_loss(rows, config.ego_nce)
    positives = losses.pop("positives_per_row")
    return _pass("child", losses, positives, rows.valid_N, frame_mask_NT)


def _parent(model: nn.Module, part: ParentPart, config: HierVLConfig) -> Pass:
    output: ParentOutput = model(part.batch, "parent")
    frame_mask_NT = gather_rows(part.batch.frame_mask_VCT.flatten(1))
    rows = ParentRows(
        video_NE=gather_rows(output.video_VE).float(),
        captions_NE=gather_rows(output.captions_VE).float(),
        summary_NE=gather_rows(output.summary_VE).float(),
        valid_N=frame_mask_NT.any(1),
        has_captions_N=gather_rows(part.has_captions_V),
        own_summary_N=gather_rows(part.own_summary_V),
        video_N=gather_rows(part.video_V),
        span_s_N2=gather_rows(part.span_s_V2),
        summary_N=gather_rows(part.summary_V),
    )
    verbs_NA, nouns_NO = (_gather_tags(tags, frame_mask_NT) for tags in (part.verbs_VA, part.nouns_VO))
    positive_NN = parent_positives(rows) | tag_positives(verbs_NA, nouns_NO, config.ego_nce.tags)
    with torch.autocast(frame_mask_NT.device.type, enabled=False):
        losses = parent_loss(rows, positive_NN, config.ego_nce, config.terms)
    valid_NN = rows.valid_N[:, None] & rows.valid_N[None]
    positives = (positive_NN & valid_NN).sum() / rows.valid_N.sum().clamp_min(1)
    return _pass("parent", losses, positives, rows.valid_N, frame_mask_NT)


def _pass(level: str, losses: dict[str, Tensor], positives: Tensor, valid_N: Tensor, frame_mask_NT: Tensor) -> Pass:
    figures = {f"loss/{level}/{name}": loss.detach() for name, loss in losses.items()}
    figures[f"{level}/positives_per_row"] = positives.detach()
    figures[f"{level}/valid_rows"] = valid_N.sum()
    figures[f"{level}/global_batch_size"] = torch.tensor(len(valid_N))
    return Pass(losses["total"], figures, frame_mask_NT)


def _gather_tags(tags_BA: Tensor, frame_mask_NT: Tensor) -> Tensor:
    if tags_BA.shape[1] == 0:  # nothing to send
        return tags_BA.new_zeros(len(frame_mask_NT), 0)
    return gather_rows(tags_BA)
