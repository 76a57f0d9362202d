from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hvlm.encoders.config import LoraConfig
from hvlm.encoders.text import load_text_encoder
from hvlm.errors import UserError
from hvlm.models.hiervl import HierVLConfig
from pipelines.training.checkpoints import load_weights, read_model_state
from pipelines.training.hiervl.config import HierVLTextConfig
from pipelines.training.hiervl.model import build_model
from pipelines.training.hiervl.system import HierVLSystem
from pipelines.training.job import TrainJob
from pipelines.training.loop import train
from pipelines.training.registry import open_system
from pipelines.training.system import RankContext
from tests.pipelines.training.hiervl.test_system import take_steps
from tests.pipelines.training.test_loop import Recorder, weights
from tests.pipelines.training.world import CLIP

MakeJob = Callable[..., TrainJob]
FROZEN = HierVLTextConfig(encoder=CLIP)
TUNED = HierVLTextConfig(encoder=CLIP, lora=LoraConfig(r=2, lora_dropout=0.1, target_modules=("v_proj", "c_fc")))
TEXTS = ["someone can jump 1", "they run all day, said 3"]


def test_with_new_adapters_it_is_the_model_on_frozen_vectors() -> None:
    models = []
    for text in (FROZEN, TUNED):
        torch.manual_seed(3)
        models.append(build_model(HierVLConfig(), text, 14, 128).eval())
    frozen, tuned = models
    encoder = load_text_encoder(CLIP, "cpu")
    vectors, tokens = encoder.encode_text(TEXTS), encoder.tokenizer.tokens(TEXTS)
    with torch.no_grad():
        expected = frozen.embed_text(torch.from_numpy(vectors))
        torch.testing.assert_close(tuned.embed_text(torch.from_numpy(tokens)), expected, rtol=1e-4, atol=1e-5)
    state = tuned.state_dict()
    for name, value in frozen.state_dict().items():
        assert torch.equal(state[name.replace("text_encoder.", "text_encoder.head.")], value), name


def test_batches_carry_tokens_and_every_adapter_gets_gradients(make_job: MakeJob) -> None:
    job = make_job(text=TUNED)
    assert job.d_text == 128
    system = open_system(job, RankContext())
    assert isinstance(system, HierVLSystem)
    child, _, parent = (batch.parts[0].batch for batch in system.stream(0, 3))
    assert child.caption_BX.dtype == torch.int32 and child.caption_BX.shape == (8, 77)
    assert parent.captions_VCX.shape == (4, 4, 77) and parent.summary_VX.shape == (4, 77)
    take_steps(system, 3)
    with pytest.raises(RuntimeError, match=r"no loss reaches .*: text_encoder\.tower\.network\..*lora_A"):
        take_steps(system, 3, skip="text_encoder.tower")


def test_a_killed_training_continues_and_its_checkpoints_hold_adapters_and_heads_alone(make_job: MakeJob) -> None:
    recorder = Recorder()
    outcome = train(make_job("whole", text=TUNED, max_steps=9), RankContext(), recorder)
    expected = weights(outcome)
    job = make_job("killed", text=TUNED, max_steps=9)
    with pytest.raises(KeyboardInterrupt):
        train(job, RankContext(), Recorder(die_at=8))
    again = Recorder()
    found = weights(train(job, RankContext(), again))
    assert min(again.metrics) > 6 and all(again.metrics[step] for step in again.metrics)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], each) for name, each in expected.items())
    tower = {name: each for name, each in expected.items() if name.startswith("text_encoder.tower.")}
    assert tower.pop("text_encoder.tower.base_sha256").shape == (32,)
    assert all("lora_" in name and each.any() for name, each in tower.items()) and len(tower) == 2 * 2 * 2


def test_adapters_of_another_text_tower_are_refused(make_job: MakeJob) -> None:
    job = make_job(text=TUNED, max_steps=1)
    uri = train(job, RankContext(), Recorder()).checkpoint_uri
    assert uri is not None
    other = replace(TUNED, encoder=replace(CLIP, seed=1))
    model = build_model(job.config.model, other, sum(job.d_in), 128)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"text tower of text\.encoder: got weights .* expected weights .*checkpoint"):
        load_weights(model, read_model_state(uri), uri)
