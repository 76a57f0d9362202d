from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.distributed as dist

from hvlm.data.batching import BatchingConfig
from hvlm.losses.objective import Objective
from hvlm.models.hierarchical_vlm import build_model
from pipelines.store.manifest import open_manifest
from pipelines.training.config import StreamConfig
from pipelines.training.hierarchical_vlm import validation
from pipelines.training.hierarchical_vlm.config import HierarchicalVLMTrainConfig
from pipelines.training.hierarchical_vlm.validation import CONTRAST_GAP, RECALL, ValidationData, validate
from pipelines.training.stream import FeatureReader, SampleTable
from pipelines.training.text import make_text_table, read_metas, read_text_table, texts_of_video
from tests.pipelines.training.world import encode_text

CPU = torch.device("cpu")
Data = tuple[HierarchicalVLMTrainConfig, ValidationData]


@pytest.fixture
def data(store: str, make_config: Callable[..., HierarchicalVLMTrainConfig]) -> Data:
    config = make_config()
    manifest = open_manifest(store)
    texts = {meta.key: texts_of_video(meta, config.text.templates) for meta in read_metas(manifest, ("dev",))}
    uri = make_text_table(manifest, config.text, texts, encode_text)
    reader = FeatureReader(SampleTable.of(manifest, "dev"), StreamConfig())
    batching = BatchingConfig(global_batch_size=2, max_rows=24)
    return config, ValidationData(reader=reader, texts=read_text_table(uri), batching=batching)


def test_figures_are_means_over_videos_and_the_model_is_left_as_it_was(
    data: Data,
) -> None:
    config, dev = data
    torch.manual_seed(0)
    model = build_model(config.model, (6, 8), 8).train()
    objective = Objective(config.objective)
    metrics = validate(model, objective, dev, CPU, "fp32")
    assert model.training and validate(model, objective, dev, CPU, "fp32") == metrics
    assert {RECALL, CONTRAST_GAP, "dev/loss/total", "dev/loss/text"} <= metrics.keys()
    assert 0 <= metrics[RECALL] <= 1 and np.isfinite(list(metrics.values())).all()


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_every_sample_counts_once_for_any_number_of_ranks(
    data: Data, monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    config, dev = data
    torch.manual_seed(0)
    model = build_model(config.model, (6, 8), 8)
    objective = Objective(config.objective)
    alone = validate(model, objective, dev, CPU, "fp32")
    assert len(dev.reader.table) % world_size
    sent: list[list[object]] = []

    def note(out: list[object], mine: list[object]) -> None:
        sent.append(mine)
        out[:] = [mine]

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: world_size)
    monkeypatch.setattr(dist, "all_gather_object", note)
    for rank in range(world_size):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        validate(model, objective, dev, CPU, "fp32")
    assert sum(part.num_videos for each in sent for part in each) == len(dev.reader.table)  # type: ignore[attr-defined]

    def gather(out: list[object], mine: object) -> None:
        out[:] = sent

    monkeypatch.setattr(dist, "all_gather_object", gather)
    assert validate(model, objective, dev, CPU, "fp32") == alone


def test_weights_by_hand_and_figures_that_do_not_exist() -> None:
    parts = [
        validation._Part(0, 3, {"dev/loss/a": 1.0, "dev/hidden/x": 4.0}, None),
        validation._Part(1, 1, {"dev/loss/a": 5.0, "dev/hidden/x": float("nan")}, None),
    ]
    assert validation._mean_figures(parts) == {"dev/loss/a": 2.0, "dev/hidden/x": 4.0}
    bad = [validation._Part(0, 1, {"dev/loss/a": float("nan")}, None)]
    assert np.isnan(validation._mean_figures([*parts, *bad])["dev/loss/a"])  # a broken loss is not averaged away
    assert validation._retrieval(parts) == {}


def test_retrieval_by_hand_with_equal_captions_and_a_video_without_text() -> None:
    video = np.eye(4, dtype=np.float32)
    text, last = video[[0, 2, 1, 3]], np.array([7, -1])
    parts = [
        validation._Part(0, 2, {}, (video[:2], text[:2], np.array([5, 7]))),
        validation._Part(1, 2, {}, (video[2:], text[2:], last)),
    ]
    metrics = validation._retrieval(parts)
    assert metrics[RECALL] == 1.0  # text 1 finds video 2, whose caption is equal
    last[:] = [8, -1]
    assert validation._retrieval(parts)[RECALL] == pytest.approx(1 / 3)


def test_a_text_of_several_videos_is_one_candidate() -> None:
    """The last video is closer to the text of the six others than to its own: rank 2 of 2 texts, not 7 of 7."""
    shared = np.array([1.0, 0.0], np.float32)
    video = np.stack([shared] * 6 + [np.array([0.8, 0.6], np.float32)])
    text = np.stack([shared] * 6 + [np.array([0.0, 1.0], np.float32)])
    metrics = validation._retrieval([validation._Part(0, 7, {}, (video, text, np.array([3] * 6 + [4])))])
    assert metrics["dev/video/video_to_text/recall_at_5"] == 1.0
    assert metrics["dev/video/video_to_text/recall_at_1"] == pytest.approx(6 / 7)


def test_an_empty_split_gives_nothing(data: Data, store: str) -> None:
    config, dev = data
    empty = FeatureReader(SampleTable.of(open_manifest(store), "none"), StreamConfig())
    nothing = ValidationData(reader=empty, texts=None, batching=dev.batching)
    assert validate(build_model(config.model, (6, 8), 8), Objective(config.objective), nothing, CPU, "fp32") == {}
