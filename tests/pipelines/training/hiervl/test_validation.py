from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from hvlm.data.hierarchy import ParentSamplingConfig
from pipelines.training.config import StreamConfig
from pipelines.training.hiervl import validation
from pipelines.training.hiervl.levels import Levels
from pipelines.training.hiervl.samples import LevelReader
from pipelines.training.hiervl.system import HierVLSystem
from pipelines.training.hiervl.validation import MONITOR_PREFIX, RECALL, SUMMARY_MCQ, validate
from pipelines.training.job import TrainJob
from pipelines.training.registry import open_system
from pipelines.training.stream import FeatureReader, SampleTable
from pipelines.training.system import RankContext

CPU = torch.device("cpu")
MakeJob = Callable[..., TrainJob]


@pytest.fixture
def system(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> HierVLSystem:
    monkeypatch.setattr(validation, "_VIDEOS_AT_ONCE", 2)
    monkeypatch.setattr(validation, "_CAPTIONS_AT_ONCE", 3)
    torch.manual_seed(0)
    opened = open_system(make_job(), RankContext())
    assert isinstance(opened, HierVLSystem)
    return opened


def test_metrics_are_fractions_and_the_model_is_left_as_it_was(system: HierVLSystem) -> None:
    model = system.build_model().train()
    metrics = validate(model, system.dev, CPU, "fp32")
    assert model.training and validate(model, system.dev, CPU, "fp32") == metrics
    assert {RECALL, SUMMARY_MCQ, MONITOR_PREFIX + "unit_std", "dev/clip/text_to_video/recall_at_1"} <= metrics.keys()
    assert all(0 <= value <= 1 for name, value in metrics.items() if "recall" in name or "accuracy" in name)


class _NotedError(Exception):
    """Ends a rank whose part has been noted."""


@pytest.mark.parametrize("world_size", [2, 3])
def test_every_video_counts_once_for_any_number_of_ranks(
    system: HierVLSystem, monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    model = system.build_model()
    alone = validate(model, system.dev, CPU, "fp32")
    sent: dict[tuple[int, int], Any] = {}
    calls = iter(range(1000))
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: world_size)

    def note(rank: int) -> Callable[[list[Any], Any], None]:
        def gather(out: list[Any], mine: Any) -> None:
            kind = next(calls) % 2
            sent[rank, kind] = mine
            out[:] = [mine]
            if kind == 1:  # captions and videos are both noted; this rank's part alone makes no metrics
                raise _NotedError

        return gather

    for rank in range(world_size):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(dist, "all_gather_object", note(rank))
        with pytest.raises(_NotedError):
            validate(model, system.dev, CPU, "fp32")
    kinds = iter([0, 1])

    def everything(out: list[Any], mine: Any) -> None:
        kind = next(kinds)
        out[:] = [sent[rank, kind] for rank in range(world_size)]

    monkeypatch.setattr(dist, "all_gather_object", everything)
    assert validate(model, system.dev, CPU, "fp32") == alone


def vectors(video: np.ndarray, summary: np.ndarray, shuffled: np.ndarray) -> validation._Vectors:
    V = len(video)
    return validation._Vectors(
        video_VE=video,
        summary_VE=summary,
        summary_V=np.arange(V),
        clips_VCE=np.zeros((V, 2, video.shape[1]), np.float32),
        clip_mask_VC=np.ones((V, 2), bool),
        shuffled_VPE=shuffled,
    )


def test_shuffle_mcq_by_hand_with_ties_and_the_wrong_text() -> None:
    eye = np.eye(3, dtype=np.float32)
    tied = vectors(eye, eye, np.repeat(eye[:, None], 20, axis=1))  # an order-blind model: five equal options
    metrics = validation._shuffle_mcq(tied)
    assert metrics == {
        "dev/video/shuffle_mcq/accuracy": pytest.approx(0.2),
        "dev/video/shuffle_mcq/accuracy_wrong_text": pytest.approx(0.2),
    }
    knows = validation._shuffle_mcq(vectors(eye, eye, np.zeros((3, 20, 3), np.float32)))
    assert knows["dev/video/shuffle_mcq/accuracy"] == 1.0  # its own text is far above every permutation
    assert knows["dev/video/shuffle_mcq/accuracy_wrong_text"] == pytest.approx(0.2)  # another one is above none


def test_summary_mcq_by_hand(system: HierVLSystem) -> None:
    videos = system.dev.parent_samples()
    assert len(videos) >= 5
    eye = np.eye(len(videos), dtype=np.float32)
    shuffled = np.zeros((len(videos), 20, len(videos)), np.float32)
    right = validation._summary_mcq(system.dev, videos, vectors(eye, eye, shuffled))
    assert right == {SUMMARY_MCQ: 1.0, "dev/video/summary_mcq/num_questions": float(len(videos))}
    wrong = validation._summary_mcq(system.dev, videos, vectors(eye, -eye, shuffled))
    assert wrong[SUMMARY_MCQ] == 0.0
    few = validation._summary_mcq(system.dev, videos[:4], vectors(eye[:4], eye[:4], shuffled[:4]))
    assert few == {}


def test_a_question_about_a_part_has_parts_of_other_videos_beside_it(make_job: MakeJob, parts_store: str) -> None:
    """Every summary is asked about with its own segment: of a video's two, only one is right."""
    system = open_system(make_job(store_uri=parts_store), RankContext())
    assert isinstance(system, HierVLSystem)
    samples = system.dev.parent_samples()
    assert len({each.video for each in samples}) >= 5 and len(samples) > 2 * len({each.video for each in samples})
    eye = np.eye(len(samples), dtype=np.float32)
    shuffled = np.zeros((len(samples), 20, len(samples)), np.float32)
    right = validation._summary_mcq(system.dev, samples, vectors(eye, eye, shuffled))
    assert right == {SUMMARY_MCQ: 1.0, "dev/video/summary_mcq/num_questions": float(len(samples))}
    lost = eye.copy()
    lost[samples.index(samples[0]._replace(summary=1))] *= -1  # one of a video's segments is not found, its other is
    found = validation._summary_mcq(system.dev, samples, vectors(lost, eye, shuffled))
    assert found[SUMMARY_MCQ] == pytest.approx(1 - 1 / len(samples))
    metrics = validate(system.build_model(), system.dev, CPU, "fp32")
    assert metrics["dev/video/summary_mcq/num_questions"] == len(samples)


def test_an_empty_split_gives_nothing(system: HierVLSystem) -> None:
    table = SampleTable.of(system.job.open_manifest(), "none")
    sampling = ParentSamplingConfig(num_clips=4)
    empty = LevelReader(FeatureReader(table, StreamConfig()), Levels({}), system.dev.texts, sampling)
    assert validate(system.build_model(), empty, CPU, "fp32") == {}
