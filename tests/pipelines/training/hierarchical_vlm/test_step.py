import torch

from hvlm.data.collate import Batch
from hvlm.losses.objective import Objective, ObjectiveConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLMConfig, build_model
from hvlm.models.temporal_encoder import TemporalEncoderConfig
from pipelines.training.hierarchical_vlm.step import run_step


def make_batch() -> Batch:
    torch.manual_seed(0)
    mask = torch.arange(8) < torch.tensor([[8], [5], [3]])
    times = torch.arange(8.0).expand(3, 8)
    return Batch(["a", "b", "c"], torch.randn(3, 8, 4), times, mask, torch.randn(3, 5), torch.tensor([0, 1, 0]), 0)


def test_losses_reach_the_model_and_boundary_weights_matter() -> None:
    encoder = TemporalEncoderConfig(d_model=8, num_layers=1, num_heads=2, d_ff=16, dropout=0.0)
    model = build_model(HierarchicalVLMConfig(encoder=encoder), 4, 5)
    losses = {}
    for quantile in (0.0, 0.5):
        objective = Objective(ObjectiveConfig(text=1.0, boundary_quantile=quantile))
        result = run_step(model, objective, make_batch(), seed=3, gather=False)
        losses[quantile] = {name: float(value) for name, value in result.losses.items()}
    assert set(losses[0.0]) == {"total", "temporal", "variance", "within_video", "covariance", "infonce", "text"}
    assert losses[0.0]["temporal"] != losses[0.5]["temporal"] and losses[0.0]["text"] == losses[0.5]["text"]
    result.losses["total"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.layers.parameters() if p.ndim == 2)


def test_losses_are_calculated_in_float32_under_autocast() -> None:
    encoder = TemporalEncoderConfig(d_model=8, num_layers=1, num_heads=2, d_ff=16, dropout=0.0)
    model = build_model(HierarchicalVLMConfig(encoder=encoder, cross_scale=True), 4, 5)
    objective = Objective(ObjectiveConfig(text=1.0, cross_scale=0.1))
    with torch.autocast("cpu", torch.bfloat16):
        result = run_step(model, objective, make_batch(), seed=3, gather=False)
    assert result.output.projected_BTZ.dtype == torch.bfloat16
    float32 = objective(result.batch, seed=3, logit_scale=result.output.logit_scale)
    assert {name: float(loss) for name, loss in result.losses.items()} == {n: float(x) for n, x in float32.items()}
    assert result.batch.projected_NTZ.dtype == result.batch.levels[0].predicted_NLZ.dtype == torch.float32
    assert result.batch.mask_NT.dtype == torch.bool
    result.losses["total"].backward()
