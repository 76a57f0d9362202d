from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from hvlm.encoders.config import LoraConfig
from hvlm.losses.ego_nce import EgoNCEConfig, TagOverlap, child_loss, cosine_matrix, ego_nce
from hvlm.models.hiervl import ScheduleConfig
from pipelines.training.hiervl import step as step_module
from pipelines.training.hiervl.config import HierVLTextConfig
from pipelines.training.hiervl.step import run_pass
from pipelines.training.hiervl.system import HierVLSystem
from pipelines.training.job import TrainJob
from pipelines.training.registry import open_system
from pipelines.training.system import RankContext
from tests.pipelines.training.world import CLIP

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
    """A child step, a parent step, and both in one: gradients of the whole batch, not of half of it.

    And with adapters in the text tower, which a parent pass reads twice.
    """
    alternate = make_job("alternate")
    model = alternate.config.model  # type: ignore[attr-defined]
    both = make_job("sum", model=replace(model, schedule=ScheduleConfig(kind="sum")))
    tuned = make_job("tuned", text=HierVLTextConfig(encoder=CLIP, lora=LoraConfig(r=2)))
    jobs = [alternate, both, tuned]
    mp.start_processes(run_rank, (jobs, str(tmp_path)), nprocs=2, start_method="spawn")
    for rank in (0, 1):
        ranks = torch.load(f"{tmp_path}/result.{rank}")
        for job, found in zip(jobs, ranks, strict=True):
            for mine, alone in zip(found, first_steps(job), strict=True):
                assert mine["figures"] == pytest.approx(alone["figures"], rel=1e-5)
                for name, expected in alone["grads"].items():
                    if expected is None:
                        assert mine["grads"][name] is None, name
                        continue
                    # Sums inside the tower are in another order for another number of texts.
                    rtol, atol = (1e-3, 1e-4 * float(expected.abs().max())) if ".lora_" in name else (1e-4, 1e-6)
                    torch.testing.assert_close(mine["grads"][name], expected, rtol=rtol, atol=atol, msg=name)


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


@pytest.mark.parametrize(
    ("tags", "positives"), [("both", 2 + 2 + 1 + 1 + 1), ("verb", 2 + 2 + 2 + 2 + 1), ("noun", 3 + 3 + 1 + 1 + 3)]
)
def test_verbs_and_nouns_of_a_batch_reach_the_loss(
    make_job: Callable[..., TrainJob], tags: TagOverlap, positives: int
) -> None:
    """Captions 0 and 1 share a verb and a noun, 2 and 3 a verb alone, 4 the noun of the first two alone."""
    system = open_system(make_job(), RankContext())
    assert isinstance(system, HierVLSystem)
    part = system.train.child(system.train.child_samples()[:5], None)
    part = part._replace(
        caption_B=torch.arange(5),
        verbs_BA=torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.uint8),
        nouns_BO=torch.tensor([[1, 0], [1, 0], [0, 1], [0, 0], [1, 0]], dtype=torch.uint8),
    )
    config = replace(system.config.model, ego_nce=EgoNCEConfig(tags=tags))
    model = system.build_model()
    found = run_pass(model, part, config).figures
    assert float(found["child/positives_per_row"]) == pytest.approx(positives / 5)
    alone = run_pass(model, part, replace(config, ego_nce=EgoNCEConfig(tags="none"))).figures
    assert found["loss/child/total"] < alone["loss/child/total"] - 0.01


def test_what_a_parent_batch_says_of_its_videos_reaches_the_loss(make_job: Callable[..., TrainJob]) -> None:
    """0 and 3 tell of overlapping parts of a video, 4 of another part; 1 and 2 have equal summaries, 1 no captions, and
    2 a summary made of its captions. 3 and 4 share a verb and a noun, 0 and 1 a verb alone."""
    system = open_system(make_job(), RankContext())
    assert isinstance(system, HierVLSystem)
    part = system.train.parent(system.train.parent_samples()[:5], None)
    part = part._replace(
        has_captions_V=torch.tensor([True, False, True, True, True]),
        own_summary_V=torch.tensor([True, True, False, True, True]),
        video_V=torch.tensor([0, 1, 2, 0, 0]),
        span_s_V2=torch.tensor([[0.0, 4.0], [0.0, 4.0], [0.0, 4.0], [2.0, 6.0], [6.0, 9.0]]),
        summary_V=torch.tensor([5, 6, 6, 7, 8]),
        verbs_VA=torch.tensor([[1, 0], [1, 0], [0, 0], [0, 1], [0, 1]], dtype=torch.uint8),
        nouns_VO=torch.tensor([[1, 0], [0, 0], [0, 0], [0, 1], [0, 1]], dtype=torch.uint8),
    )
    model = system.build_model()
    found = run_pass(model, part, system.config.model).figures
    output = model(part.batch, "parent")
    positive_VV = torch.eye(5, dtype=torch.bool)
    positive_VV[[0, 3, 1, 2, 3, 4], [3, 0, 2, 1, 4, 3]] = True
    for name, others_VE, valid_V in (
        ("summary_video", output.video_VE, torch.ones(5, dtype=torch.bool)),
        ("summary_caption", output.captions_VE, torch.tensor([True, False, False, True, True])),
    ):
        similarity_VV = cosine_matrix(output.summary_VE, others_VE, valid_V)
        expected = ego_nce(similarity_VV, positive_VV, system.config.model.ego_nce.temperature, valid_V).total
        torch.testing.assert_close(found[f"loss/parent/{name}"], expected.detach())
    assert float(found["parent/positives_per_row"]) == pytest.approx(11 / 5)
