import pytest
import torch
from torch import nn

from hvlm.errors import UserError
from hvlm.losses.batch import GatheredBatch, LevelNodes
from hvlm.losses.monitors import AlarmConfig, Alarms, collapse_monitors
from hvlm.losses.objective import Objective, ObjectiveConfig, ObjectiveWeights, check_objective
from hvlm.losses.temporal import temporal_loss
from hvlm.models.heads import AlignmentConfig, ProjectorConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLM, HierarchicalVLMConfig, build_model
from hvlm.models.temporal_encoder import TemporalEncoderConfig
from hvlm.synthetic.features import toy_features

TEMPORAL_ONLY = ObjectiveConfig(weights=ObjectiveWeights(temporal=1.0))
LITERAL = ObjectiveConfig(preset="upstream_literal")
SOUND = ObjectiveConfig()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def toy() -> tuple[torch.Tensor, torch.Tensor]:
    made = toy_features(0, 64)
    return torch.from_numpy(made.features), torch.from_numpy(made.mask)


def small_model(*, cross_scale: bool = False, aligned: bool = False) -> HierarchicalVLM:
    torch.manual_seed(0)
    config = HierarchicalVLMConfig(
        encoder=TemporalEncoderConfig(d_model=32, num_layers=2, num_heads=2, d_ff=64, dropout=0.0),
        projector=ProjectorConfig(dim=16),
        alignment=AlignmentConfig(enabled=aligned, dim=8),
        cross_scale=cross_scale,
    )
    return build_model(config, 32, 5 if aligned else None)


def full_batch(model: HierarchicalVLM) -> tuple[GatheredBatch, torch.Tensor | None]:
    x, mask = toy()
    x, mask = x[:8], mask[:8]
    out = model(x, torch.arange(x.shape[1]).float().expand(8, -1), mask, torch.randn(8, 5))
    levels = tuple(LevelNodes(*level) for level in out.cross_scale)
    batch = GatheredBatch(out.projected_BTZ, mask, None, out.video_BE, out.text_BE, torch.arange(8), levels)
    return batch, out.logit_scale


class ConvEncoder(nn.Module):
    """The toy encoder of the specification: temporal convolutions, no normalisation, so the scale of h is free."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv1d(32, 64, 5, padding=2), nn.Conv1d(64, 64, 5, padding=2)])
        self.out = nn.Conv1d(64, 32, 1)

    def forward(self, x_NTD: torch.Tensor, mask_NT: torch.Tensor) -> torch.Tensor:
        y_NDT = x_NTD.transpose(1, 2)
        for layer in self.layers:
            y_NDT = nn.functional.gelu(layer(y_NDT * mask_NT[:, None]))
        return self.out(y_NDT).transpose(1, 2)


def train_conv(config: ObjectiveConfig, steps: int = 100) -> tuple[dict[str, float], dict[str, float]]:
    """Monitors of the trained toy encoder, and its last losses."""
    x, mask = toy()
    torch.manual_seed(0)
    model, objective = ConvEncoder(), Objective(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(0)
    losses: dict[str, torch.Tensor] = {}
    for step in range(steps):
        chosen = torch.randperm(64, generator=order)[:32]
        losses = objective(GatheredBatch(model(x[chosen], mask[chosen]), mask[chosen]), seed=step)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
    with torch.no_grad():
        return collapse_monitors(model(x, mask), mask), {name: float(value) for name, value in losses.items()}


@pytest.mark.parametrize("config", [TEMPORAL_ONLY, LITERAL], ids=["temporal_only", "upstream_literal"])
def test_smoothness_and_the_literal_objective_collapse(config: ObjectiveConfig) -> None:
    monitors, losses = train_conv(config)
    assert monitors["unit_std"] < 0.05
    assert monitors["temporal_consistency"] > 0.99
    assert monitors["random_pair_cosine"] > 0.95
    assert losses.get("variance", 0.0) == 0.0  # the published hinge is satisfied all the while
    alarms = Alarms(AlarmConfig(evaluations=1)).observe_evaluation(100, monitors)
    assert {"unit_std", "random_pair_cosine"} <= {alarm.name for alarm in alarms}


def test_the_sound_objective_does_not_collapse() -> None:
    monitors, _ = train_conv(SOUND)
    assert monitors["unit_std"] > 0.8
    assert abs(monitors["random_pair_cosine"]) < 0.2
    assert monitors["effective_rank"] >= 8
    assert monitors["temporal_consistency"] > 0.9
    assert Alarms(AlarmConfig(evaluations=1)).observe_evaluation(100, monitors) == []


def matrices_without_gradient(model: nn.Module) -> list[str]:
    return [n for n, p in model.named_parameters() if p.ndim >= 2 and (p.grad is None or not p.grad.abs().sum() > 0)]


def test_one_backward_pass_reaches_every_matrix() -> None:
    model = small_model(cross_scale=True, aligned=True)
    batch, scale = full_batch(model)
    objective = Objective(ObjectiveConfig(cross_scale=0.1, text=1.0))
    losses = objective(batch, seed=0, logit_scale=scale)
    losses["total"].backward()
    assert matrices_without_gradient(model) == []
    assert model.alignment is not None
    assert model.alignment.log_scale.grad is not None


@pytest.mark.parametrize("name", ["temporal", "variance", "within_video", "covariance", "infonce"])
def test_each_loss_alone_reaches_the_encoder(name: str) -> None:
    model = small_model()
    batch, _ = full_batch(model)
    Objective(ObjectiveConfig(weights=ObjectiveWeights(**{name: 1.0}), within_video_gamma=2.0))(batch, seed=0)[
        "total"
    ].backward()
    assert matrices_without_gradient(model.encoder) == []


def test_the_loss_on_inputs_reaches_nothing() -> None:
    model = small_model()
    x, mask = toy()
    model(x[:4], torch.zeros(4, x.shape[1]), mask[:4])
    loss = temporal_loss(x[:4], mask[:4])
    assert loss > 0.1
    assert not loss.requires_grad
    assert len(matrices_without_gradient(model)) == sum(p.ndim >= 2 for p in model.parameters())


def test_total_is_the_weighted_sum_and_losses_without_weight_are_left_out() -> None:
    model = small_model(cross_scale=True, aligned=True)
    batch, scale = full_batch(model)
    config = ObjectiveConfig(cross_scale=0.1, text=2.0)
    losses = Objective(config)(batch, seed=5, logit_scale=scale)
    assert config.all_weights() == {
        "temporal": 1.0,
        "variance": 1.0,
        "within_video": 0.25,
        "covariance": 0.04,
        "infonce": 1.0,
        "cross_scale": 0.1,
        "text": 2.0,
    }
    expected = sum(weight * losses[name] for name, weight in config.all_weights().items())
    torch.testing.assert_close(losses["total"], expected)
    literal = Objective(LITERAL)(batch, seed=5)
    assert list(literal) == ["total", "temporal", "variance"]
    torch.testing.assert_close(literal["total"], literal["temporal"] + 0.1 * literal["variance"])


def test_text_off_leaves_the_other_losses_bit_identical() -> None:
    model = small_model(cross_scale=True, aligned=True)
    batch, scale = full_batch(model)
    with_text = Objective(ObjectiveConfig(cross_scale=0.1, text=1.0))(batch, seed=3, logit_scale=scale)
    without = Objective(ObjectiveConfig(cross_scale=0.1))(batch, seed=3)
    for name in set(without) - {"total"}:
        assert torch.equal(with_text[name], without[name]), name


def test_same_seed_same_anchors() -> None:
    batch, _ = full_batch(small_model())
    objective = Objective(SOUND)
    assert torch.equal(objective(batch, seed=1)["infonce"], objective(batch, seed=1)["infonce"])
    assert not torch.equal(objective(batch, seed=1)["infonce"], objective(batch, seed=2)["infonce"])


@pytest.mark.parametrize(
    "config",
    [
        SOUND,
        LITERAL,
        ObjectiveConfig(cross_scale=0.1),
        ObjectiveConfig(text=1.0),
        ObjectiveConfig(weights=ObjectiveWeights(), text=1.0),
    ],
)
def test_unused_parts_are_exactly_those_without_gradient(config: ObjectiveConfig) -> None:
    model = small_model(cross_scale=True, aligned=True)
    batch, scale = full_batch(model)
    objective = Objective(config)
    objective(batch, seed=0, logit_scale=scale)["total"].backward()
    parts = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None}
    assert parts == set(objective.unused_parts()) - {"classifier"}


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.projector\.kind"):
        check_objective(HierarchicalVLMConfig(), LITERAL)
    check_objective(HierarchicalVLMConfig(projector=ProjectorConfig(kind="linear")), LITERAL)
    with pytest.raises(UserError, match=r"objective\.cross_scale"):
        check_objective(HierarchicalVLMConfig(), ObjectiveConfig(cross_scale=0.1))
    with pytest.raises(UserError, match=r"objective\.text"):
        check_objective(HierarchicalVLMConfig(alignment=AlignmentConfig(enabled=False)), ObjectiveConfig(text=1.0))
    with pytest.raises(UserError, match=r"model\.num_classes: got 200"):
        check_objective(HierarchicalVLMConfig(num_classes=200), SOUND)
    with pytest.raises(UserError, match="at least one loss"):
        ObjectiveConfig(weights=ObjectiveWeights())
    with pytest.raises(UserError, match=r"objective\.weights\.variance"):
        ObjectiveWeights(variance=-1.0)
    batch, _ = full_batch(small_model())
    with pytest.raises(UserError, match=r"objective\.text"):
        Objective(ObjectiveConfig(text=1.0))(batch._replace(text_NE=None), seed=0)
    with pytest.raises(UserError, match=r"objective\.cross_scale"):
        Objective(ObjectiveConfig(cross_scale=0.1))(batch, seed=0)
