from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from hvlm.losses.ego_nce import child_loss
from hvlm.models.hiervl import ScheduleConfig
from pipelines.training.hiervl import step as step_module
from pipelines.training.hiervl.step import run_pass
from pipelines.training.hiervl.system import HierVLSystem
from pipelines.training.job import TrainJob
from pipelines.training.registry import open_system
from pipelines.training.system import RankContext

Result = dict[str, Any]


def first_steps(job: TrainJob, rank: int = 0, world_size: int = 1) -> list[Result]:
    """Losses and gradients of the first steps, without updates; of `sum`, of both levels together."""
    system = open_system(job, RankContext(rank, world_size))
    torch.manual_seed(0)
    model = system.build_model()
    wrapped = model
    if world_size > 1:
        wrapped = DistributedDataParallel(model, find_unused_parameters=system.partial_passes)
    results = []
    for step, batch in enumerate(system.stream(0, 3)):
        model.zero_grad(set_to_none=True)
        figures: dict[str, float] = {}
        for each in system.passes(wrapped, batch, step):
            each.total.backward()
            figures |= {name: float(value) for name, value in each.figures.items()}
        grads = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
        results.append({"figures": figures, "grads": grads})
    return results


def run_rank(rank: int, jobs: list[TrainJob], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        torch.save([first_steps(job, rank, 2) for job in jobs], f"{folder}/result.{rank}")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_equal_one_in_losses_and_gradients(make_job: Callable[..., TrainJob], tmp_path: Path) -> None:
    """A child step, a parent step, and both in one: gradients of the whole batch, not of half of it."""
    alternate = make_job("alternate")
    model = alternate.config.model  # type: ignore[attr-defined]
    both = make_job("sum", model=replace(model, schedule=ScheduleConfig(kind="sum")))
    jobs = [alternate, both]
    mp.start_processes(run_rank, (jobs, str(tmp_path)), nprocs=2, start_method="spawn")
    for rank in (0, 1):
        ranks = torch.load(f"{tmp_path}/result.{rank}")
        for job, found in zip(jobs, ranks, strict=True):
            for mine, alone in zip(found, first_steps(job), strict=True):
                assert mine["figures"] == pytest.approx(alone["figures"], rel=1e-5)
                for name, expected in alone["grads"].items():
                    if expected is None:
                        assert mine["grads"][name] is None, name
                    else:
                        torch.testing.assert_close(mine["grads"][name], expected, rtol=1e-4, atol=1e-6, msg=name)


def test_both_levels_log_their_losses_and_counts(make_job: Callable[..., TrainJob]) -> None:
    child, _, parent = (each["figures"] for each in first_steps(make_job()))
    assert {f"loss/child/{name}" for name in ("total", "text_to_video", "video_to_text")} <= child.keys()
    assert {f"loss/parent/{name}" for name in ("total", "summary_video", "summary_caption")} <= parent.keys()
    assert child["child/global_batch_size"] == 8 and parent["parent/global_batch_size"] == 4
    assert (
        child["child/valid_rows"] == 8 and child["child/positives_per_row"] >= 1 <= parent["parent/positives_per_row"]
    )


def test_equal_captions_are_positives_and_a_clip_without_rows_is_left_out(
    make_job: Callable[..., TrainJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    system = open_system(make_job(), RankContext())
    assert isinstance(system, HierVLSystem)
    part = system.train.child(system.train.child_samples()[:6], None)
    part.batch.frame_mask_BT[2] = False
    part = part._replace(caption_B=torch.tensor([5, 6, 7, 5, 8, 9]), verbs_BA=part.verbs_BA[:, :0])
    seen: list[Any] = []

    def noting(rows: Any, config: Any) -> Any:
        seen.append(rows)
        return child_loss(rows, config)

    monkeypatch.setattr(step_module, "child_loss", noting)
    result = run_pass(system.build_model(), part, system.config.model)
    (rows,) = seen
    assert rows.valid_N.tolist() == [True, True, False, True, True, True] and rows.verbs_NA.shape == (6, 0)
    assert float(result.figures["child/positives_per_row"]) == pytest.approx((2 + 1 + 2 + 1 + 1) / 5)
    assert rows.text_NE.dtype == rows.video_NE.dtype == torch.float32
