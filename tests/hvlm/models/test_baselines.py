from typing import Any

import pytest
import torch
from torch.nn import functional

from hvlm.data.crops import Rows
from hvlm.errors import UserError
from hvlm.models.baselines import MoCo, MoCoConfig, VideoClassifier
from hvlm.models.flat import FlatPoolingConfig, RowEncoderConfig
from hvlm.models.heads import AlignmentConfig, ProjectorConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLM, HierarchicalVLMConfig, build_model
from hvlm.models.temporal_encoder import TemporalEncoderConfig


def backbone(**changes: Any) -> HierarchicalVLM:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "encoder": TemporalEncoderConfig(d_model=8, num_layers=1, num_heads=2, d_ff=16, dropout=0.0),
        "projector": ProjectorConfig(dim=6),
        "pyramid": FlatPoolingConfig(kind="mean"),
        "alignment": AlignmentConfig(enabled=False),
    }
    return build_model(HierarchicalVLMConfig(**(values | changes)), 4)


def views(seed: int) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    return Rows(torch.randn(3, 5, 4, generator=generator), torch.arange(5.0).expand(3, 5), torch.ones(3, 5) > 0)


def test_the_classifiers_score_is_the_consensus_of_the_rows_scores() -> None:
    tsn = backbone(encoder=RowEncoderConfig(kind="rows", d_model=8, d_hidden=8))
    model = VideoClassifier(tsn, num_classes=7, dropout=0.5).eval()
    logits, hidden = model(views(1))
    torch.testing.assert_close(logits, model.head(hidden).mean(1))
    assert logits.shape == (3, 7)


def test_the_key_network_follows_by_the_momentum_and_has_no_gradient() -> None:
    model = MoCo(backbone(), MoCoConfig(momentum=0.75, queue_size=4))
    before = [parameter.clone() for parameter in model.key.parameters()]
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(1.0)
    query, key = model(views(1), views(2))
    for slow, start in zip(model.key.parameters(), before, strict=True):
        torch.testing.assert_close(slow, start + 0.25)
    assert query.requires_grad and not key.requires_grad
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"backbone"}
    model.eval()(views(1), views(2))
    for slow, start in zip(model.key.parameters(), before, strict=True):
        torch.testing.assert_close(slow, start + 0.25)


def test_query_and_key_are_the_projected_videos() -> None:
    model = MoCo(backbone(), MoCoConfig(queue_size=4)).eval()
    query, key = model(views(1), views(2))
    hidden, _ = model.backbone.encode(*views(2))
    torch.testing.assert_close(key, functional.normalize(model.backbone.projector(hidden.mean(1)), dim=-1))
    assert query.shape == (3, 6) and not torch.allclose(query, key)


def test_the_queue_drops_the_oldest_and_its_place_is_part_of_the_state() -> None:
    model = MoCo(backbone(), MoCoConfig(queue_size=5))
    keys = functional.normalize(torch.randn(9, 6), dim=-1)
    for start in range(0, 9, 3):
        model.enqueue(keys[start : start + 3])
    torch.testing.assert_close(model.queue_QE, keys[[5, 6, 7, 8, 4]])
    other = MoCo(backbone(), MoCoConfig(queue_size=5))
    other.load_state_dict(model.state_dict())
    other.enqueue(keys[:1])
    assert torch.equal(other.queue_QE[4], keys[0]) and int(other.next_row) == 0


@pytest.mark.parametrize("change", [{"momentum": 1.0}, {"queue_size": 0}, {"temperature": 0.0}, {"min_crop": 0.0}])
def test_what_is_out_of_range_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"moco\.{next(iter(change))}"):
        MoCoConfig(**change)


def test_a_flat_model_has_no_cross_scale_predictor() -> None:
    with pytest.raises(UserError, match=r"model\.cross_scale: got true with a flat"):
        backbone(cross_scale=True)
