import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient

from hvlm.data.readers.egoclip import ClipRow, write_egoclip
from hvlm.errors import JobError
from hvlm.models.hiervl import METHODS, HierVL, HierVLConfig, with_preset
from pipelines.store.annotations import AnnotationPartConfig, AnnotationsConfig, make_annotations
from pipelines.store.feature_files import FeatureFormat, ImportConfig
from pipelines.store.imports import import_features
from pipelines.training.checkpoints import list_checkpoints
from pipelines.training.config import CheckpointConfig, ImportedTextConfig, TrainResources
from pipelines.training.hiervl.config import HierVLTextConfig, HierVLTrainConfig
from pipelines.training.hiervl.system import HierVLSystem
from pipelines.training.job import TrainJob
from pipelines.training.loop import train
from pipelines.training.prepare import prepare
from pipelines.training.registry import open_system
from pipelines.training.state import GradientCheck
from pipelines.training.system import RankContext
from pipelines.training.trainer import run_training
from tests.pipelines.training.test_loop import Recorder, weights
from tests.pipelines.training.test_trainer import worker_processes
from tests.pipelines.training.world import CLASSES, encode_text

MakeJob = Callable[..., TrainJob]


def take_steps(system: HierVLSystem, num_steps: int, *, skip: str = "") -> None:
    """Backward passes under the check; the gradients of parts whose name begins with `skip` are lost."""
    model = system.build_model()
    check = GradientCheck(model, system.gradient_cycle)
    for step, batch in enumerate(system.stream(0, num_steps)):
        model.zero_grad(set_to_none=True)
        for each in system.passes(model, batch, step):
            each.total.backward()
        for name, parameter in model.named_parameters():
            if skip and name.startswith(skip):
                parameter.grad = None
        check.observe()


@pytest.mark.parametrize("preset", sorted(METHODS))
def test_every_parameter_of_a_preset_gets_gradients_in_its_schedule(make_job: MakeJob, preset: str) -> None:
    base = make_job("base")
    model = base.config.model  # type: ignore[attr-defined]
    assert isinstance(model, HierVLConfig)
    method = with_preset(model, preset)  # type: ignore[arg-type]
    method = HierVLConfig(**{n: getattr(method, n) for n in method.__dataclass_fields__ if n != "start"})
    system = open_system(make_job(preset, model=method), RankContext())
    assert isinstance(system, HierVLSystem)
    take_steps(system, 6)
    with pytest.raises(RuntimeError, match="no loss reaches these trainable parameters: text_encoder"):
        take_steps(system, 6, skip="text_encoder")


def test_an_aggregator_that_no_parent_step_reaches_is_found(make_job: MakeJob) -> None:
    system = open_system(make_job(), RankContext())
    assert isinstance(system, HierVLSystem) and system.gradient_cycle == 3 and system.partial_passes
    with pytest.raises(RuntimeError, match=r"parameters: aggregator\."):
        take_steps(system, 3, skip="aggregator")


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """The uninterrupted training that the killed one is compared with."""
    return {}


@pytest.fixture
def uninterrupted(make_job: MakeJob, kept: dict[str, Any]) -> tuple[Any, Recorder, dict[str, torch.Tensor]]:
    if not kept:
        recorder = Recorder()
        outcome = train(make_job("uninterrupted", epochs=6), RankContext(), recorder)
        kept["result"] = outcome, recorder, weights(outcome)
    return kept["result"]


def test_a_training_learns_both_levels_and_says_what_it_did(
    uninterrupted: tuple[Any, Recorder, dict[str, torch.Tensor]],
) -> None:
    outcome, recorder, _ = uninterrupted
    first, last = recorder.metrics[3], recorder.metrics[max(recorder.metrics)]
    for level in ("child", "parent"):
        assert last[f"train/loss/{level}/total"] < 0.85 * first[f"train/loss/{level}/total"]
        assert last[f"train/{level}/positives_per_row"] >= 1
    done = last["train/child/steps"], last["train/parent/steps"]
    assert sum(done) == outcome.step and done[1] == outcome.step // 3
    assert outcome.stopped is None and not any(name.startswith("alarm.dev.hidden") for name in recorder.tags)
    for name in (
        "dev/video/text_to_video/recall_at_1",
        "dev/clip/text_to_video/recall_at_1",
        "dev/video/summary_mcq/accuracy",
        "dev/video/shuffle_mcq/accuracy",
        "dev/video/shuffle_mcq/accuracy_wrong_text",
        "dev/clip/effective_rank",
    ):
        assert name in outcome.metrics, name
    scores = {step: recorder.metrics[step]["dev/video/summary_mcq/accuracy"] for step, _ in recorder.checkpoints}
    best = max(scores, key=lambda step: (scores[step], step))
    assert str(outcome.best_uri).endswith(f"{best:09d}")


@pytest.mark.parametrize("die_at", [8, 16])
def test_a_killed_training_continues_with_the_same_losses(
    make_job: MakeJob, uninterrupted: tuple[Any, Recorder, dict[str, torch.Tensor]], die_at: int
) -> None:
    job = make_job(epochs=6)
    with pytest.raises(KeyboardInterrupt):
        train(job, RankContext(), Recorder(die_at))
    recorder = Recorder()
    outcome = train(job, RankContext(), recorder)
    _, whole, expected = uninterrupted
    assert min(recorder.metrics) > die_at // 6 * 6
    for step in recorder.metrics:
        for name in ("train/loss/child/total", "train/loss/parent/total", "train/grad_norm", "train/lr"):
            assert recorder.metrics[step].get(name) == whole.metrics[step].get(name), (step, name)
    found = weights(outcome)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_tables_of_clips_and_summaries_become_a_training(make_config: Callable[..., Any], tmp_path: Path) -> None:
    """EgoClip and EgoSummary tables -> annotation file -> import of features -> both levels are trained."""
    rng = np.random.default_rng(0)
    clips, summaries = [], []
    (tmp_path / "features").mkdir()
    for i in range(24):
        name, label = f"uid-{i:02d}", CLASSES[i % 4]
        np.save(tmp_path / "features" / f"{name}.npy", (i % 4) + rng.normal(size=(40, 5)).astype(np.float32))
        for annotator in ("pass_1", "pass_2"):
            row = ClipRow(name, (0.0, 20.0), "", annotator=annotator, duration_s=20.0)
            told = [(n, f"#C C can {label} {annotator} {n}") for n in range(8)]
            clips += [row._replace(span_s=(2.0 * n, 2.0 * n + 2.5), text=text, verbs=(i % 4,)) for n, text in told]
            span_s = (0.0, 9.0) if annotator == "pass_1" else (6.0, 18.5)
            summaries.append(row._replace(span_s=span_s, text=f"C will {label}, says {annotator} of {i}"))
    for file, rows in (("clips.csv", clips), ("summaries.csv", summaries)):
        (tmp_path / file).write_text(write_egoclip(rows))
    part = AnnotationPartConfig(clips_uri=f"{tmp_path}/clips.csv", summaries_uri=f"{tmp_path}/summaries.csv")
    made = make_annotations(AnnotationsConfig(output_uri=f"{tmp_path}/annotations.json", parts=(part,)))
    assert (made.num_videos, made.num_captions, made.num_summaries, made.bare) == (24, 384, 48, [])
    texts = sorted({row.text for row in clips + summaries})
    np.savez(tmp_path / "texts.npz", texts=np.array(texts), features=encode_text(texts))
    features = FeatureFormat(
        encoder="i3d", extractor="I3D", dim=5, stride_s=0.5, clip_s=0.5, offset_s=0.0, text_extractor="words"
    )
    imported = import_features(
        ImportConfig(
            store_uri=f"{tmp_path}/imported",
            features_uri=f"{tmp_path}/features",
            annotations_uri=f"{tmp_path}/annotations.json",
            text_features_uri=f"{tmp_path}/texts.npz",
            format=features,
        )
    )
    assert imported.published.published == 24 and imported.cut == [] and not imported.annotation_problems
    config = make_config(
        store_uri=f"{tmp_path}/imported",
        encoders=("i3d",),
        text=HierVLTextConfig(encoder=ImportedTextConfig(kind="imported", extractor="words")),
        max_steps=9,
    )
    job, _ = prepare(config, None)
    recorder = Recorder()
    outcome = train(job, RankContext(), recorder)
    assert outcome.step == 9 and recorder.metrics[9]["train/parent/steps"] == 3
    system = open_system(job, RankContext())
    assert isinstance(system, HierVLSystem)
    counts = {len(each.captions) for video in system.train.levels.videos.values() for each in video.summaries}
    assert counts == {4, 5}  # clips that end by 9.0 s, and those from 6.0 to 18.5 s, of one pass of two
    assert len(system.train.parent_samples()) == 2 * len(system.train.keys)


def kill_a_worker_after(output_uri: str, step: int) -> None:
    """Wait for a checkpoint of at least `step`, and kill the second worker."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        saved = list_checkpoints(output_uri)
        if saved and saved[-1].step >= step:
            os.kill(worker_processes()[-1].pid, signal.SIGKILL)
            return
        time.sleep(0.02)


@pytest.mark.slow
def test_a_training_killed_on_two_workers_goes_on_with_one(
    make_config: Callable[..., HierVLTrainConfig], make_job: MakeJob, ray_cluster: None
) -> None:
    """Through Ray Train, in the middle of an epoch, both levels: every step as one process takes it undisturbed.

    A loss and a gradient are those of the ids of the step's global batch, so a sample too many, too few or at another
    step would show.
    """
    steps = {"epochs": 2, "log_every_steps": 1, "checkpoint": CheckpointConfig(every_steps=4)}
    whole = Recorder()
    expected = weights(train(make_job("whole", **steps), RankContext(), whole))
    config = make_config(resources=TrainResources(num_workers=2, max_failures=0), **steps)
    killer = threading.Thread(target=kill_a_worker_after, args=(config.output_uri, 8))
    killer.start()
    with pytest.raises(JobError, match="the training failed"):
        run_training(config)
    killer.join()
    killed_at = list_checkpoints(config.output_uri)[-1].step
    report = run_training(replace(config, resources=TrainResources(num_workers=1)))
    assert 8 <= report.resumed_step == killed_at < report.outcome.step == 30
    client = MlflowClient(report.job.tracking_uri)
    for name in ("loss/child/total", "loss/parent/total", "child/positives_per_row", "grad_norm"):
        history = client.get_metric_history(report.job.run_id, f"train/{name}")
        found = {metric.step: metric.value for metric in history}
        undisturbed = {step: each[f"train/{name}"] for step, each in whole.metrics.items() if f"train/{name}" in each}
        assert found == pytest.approx(undisturbed, rel=1e-3) and len(history) == len(found)
    assert client.get_run(report.job.run_id).data.tags["num_workers"] == "1"
    for name, value in weights(report.outcome).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-2, atol=1e-3, msg=name)


def test_a_model_of_the_store_is_built(make_job: MakeJob) -> None:
    system = open_system(make_job(), RankContext())
    assert isinstance(system.build_model(), HierVL)
    assert system.progress(7)["parent/steps"] == 2 and system.score({}) is None
    assert system.score({"dev/video/summary_mcq/accuracy": 0.4}) == 0.4
