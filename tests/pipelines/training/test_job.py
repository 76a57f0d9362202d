from collections.abc import Callable
from dataclasses import replace

import pytest

from hvlm.errors import UserError
from infra.config_io import build_config
from pipelines.training.job import TrainJob
from pipelines.training.registry import TRAIN_CONFIG


def test_a_store_that_changed_under_a_pinned_version_is_refused(make_job: Callable[..., TrainJob]) -> None:
    with pytest.raises(UserError, match="as when the training began"):
        replace(make_job(), manifest_hash="0" * 64).open_manifest()


def test_a_checkpoint_says_what_it_was_trained_with(make_job: Callable[..., TrainJob]) -> None:
    job = make_job()
    info = job.checkpoint_info(7)
    assert (info.step, info.d_in, info.encoders) == (7, job.d_in, job.encoders)
    assert build_config(TRAIN_CONFIG, info.config, origin="info") == job.config
