"""Two gloo processes against one: values and gradients of every loss, with unequal numbers of real rows per rank.

The file is also the program that each rank runs: `python test_gather.py RANK FOLDER`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from hvlm.losses.objective import Objective, ObjectiveConfig, ObjectiveWeights
from hvlm.losses.temporal import boundary_pair_weights
from hvlm.models.heads import AlignmentConfig, ProjectorConfig
from hvlm.models.hierarchical_vlm import HierarchicalVLM, HierarchicalVLMConfig, build_model
from hvlm.models.optimization import freeze
from hvlm.models.temporal_encoder import TemporalEncoderConfig
from pipelines.training.gather import gather_batch, gather_rows, local_batch

ROOT = Path(__file__).parents[3]
WORLD = 2
# Rank 0 holds 12 + 11 + 12 rows, rank 1 holds 9 + 1 + 2.
LENGTHS = [12, 11, 12, 9, 1, 2]


def objectives() -> dict[str, ObjectiveConfig]:
    """Every loss alone, the reductions, and everything together."""
    configs = {
        name: ObjectiveConfig(weights=ObjectiveWeights(**{name: 1.0}), within_video_gamma=2.0)
        for name in ("temporal", "variance", "within_video", "covariance", "infonce")
    }
    for reduction in ("video_mean", "sum"):
        configs[reduction] = ObjectiveConfig(weights=ObjectiveWeights(temporal=1.0), reduction=reduction)  # type: ignore[arg-type]
    configs["upstream_literal"] = ObjectiveConfig(preset="upstream_literal", upstream_tau=5.0)
    configs["cross_scale"] = ObjectiveConfig(weights=ObjectiveWeights(), cross_scale=1.0)
    configs["text"] = ObjectiveConfig(weights=ObjectiveWeights(), text=1.0)
    configs["everything"] = ObjectiveConfig(cross_scale=0.1, text=1.0)
    return configs


def model() -> HierarchicalVLM:
    torch.manual_seed(0)
    made = HierarchicalVLMConfig(
        encoder=TemporalEncoderConfig(d_model=16, num_layers=1, num_heads=2, d_ff=32, dropout=0.0),
        projector=ProjectorConfig(dim=8),
        alignment=AlignmentConfig(dim=6),
        cross_scale=True,
    )
    built = build_model(made, 7, 5)
    with torch.no_grad():
        built.pyramid.scores_LD.normal_()
    return built


def data() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(6, 12, 7, generator=g),
        "times": torch.arange(12.0).expand(6, -1),
        "mask": torch.arange(12) < torch.tensor(LENGTHS)[:, None],
        "text": torch.randn(6, 5, generator=g),
        "group": torch.tensor([0, 1, -1, 1, 4, 5]),
    }


def losses_of(net: torch.nn.Module, part: dict[str, Tensor], config: ObjectiveConfig) -> dict[str, Tensor]:
    """Losses of the global batch from this rank's part of it."""
    out = net(part["x"], part["times"], part["mask"], part["text"])
    weight = boundary_pair_weights(part["x"], part["mask"], 0.3, 0.2)
    batch = gather_batch(local_batch(out, part["mask"], part["group"], weight))
    return Objective(config)(batch, seed=9, logit_scale=out.logit_scale)


def gradients(net: torch.nn.Module) -> dict[str, Tensor]:
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in net.named_parameters()}


def run_rank(rank: int, folder: Path) -> None:
    """One rank: for each objective the loss and the gradient after the mean over ranks."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    part = {name: value[rank * 3 : rank * 3 + 3] for name, value in data().items()}
    results: dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]] = {}
    for name, config in objectives().items():
        net = model()
        losses = losses_of(net, part, config)
        losses["total"].backward()
        mean = gradients(net)
        for gradient in mean.values():
            dist.all_reduce(gradient)
            gradient /= WORLD
        results[name] = ({key: value.detach() for key, value in losses.items()}, mean)
        frozen = model()
        freeze(frozen, Objective(config).unused_parts())
        wrapped = DistributedDataParallel(frozen)
        ddp_losses = losses_of(wrapped, part, config)
        ddp_losses["total"].backward()
        results[f"ddp_{name}"] = ({key: value.detach() for key, value in ddp_losses.items()}, gradients(frozen))
    bits = gather_rows(torch.tensor([[rank == 0, True]]))
    results["mask"] = ({"bits": bits}, {})
    torch.save(results, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]]]:
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    programs = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(folder)], env=environment) for rank in range(WORLD)
    ]
    try:
        assert [program.wait(timeout=120) for program in programs] == [0] * WORLD
    finally:
        for program in programs:
            program.kill()
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", [f"{prefix}{name}" for name in objectives() for prefix in ("", "ddp_")])
def test_two_ranks_equal_one_in_value_and_gradient(
    ranks: list[dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]]], name: str
) -> None:
    net = model()
    expected = losses_of(net, data(), objectives()[name.removeprefix("ddp_")])
    expected["total"].backward()
    assert any(gradient.abs().max() > 1e-4 for gradient in gradients(net).values())
    for rank in ranks:
        values, mean = rank[name]
        assert values.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(values[key], value.detach(), atol=1e-6, rtol=1e-5)
        for key, gradient in gradients(net).items():
            torch.testing.assert_close(mean[key], gradient, atol=1e-6, rtol=1e-4, msg=f"{name}: {key}")


def test_masks_are_gathered_in_rank_order(
    ranks: list[dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]]],
) -> None:
    for rank in ranks:
        assert rank["mask"][0]["bits"].tolist() == [[True, True], [False, True]]


def test_without_a_process_group_nothing_changes() -> None:
    x = torch.randn(2, 3)
    assert gather_rows(x) is x
    out = model()(data()["x"], data()["times"], data()["mask"])
    batch = local_batch(out, data()["mask"], data()["group"])
    assert batch.video_NE is None  # no text was given
    assert gather_batch(batch).projected_NTZ is out.projected_BTZ


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), Path(sys.argv[2]))
