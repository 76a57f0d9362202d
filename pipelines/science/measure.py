"""A checkpoint's answers to the planted questions of a world's two test splits.

Shapes: N clips, V videos, C clips of a video, D width of a feature, X width of the text features, E joint space.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hvlm.errors import UserError
from hvlm.models.hiervl import HierVL, build_hiervl
from hvlm.synthetic.planted_hierarchy import PlantedHierarchy
from hvlm.synthetic.planted_metrics import Answers, leak_metrics, planted_metrics
from infra.config_io import build_config
from pipelines.training.checkpoints import load_weights, read_info, read_model_state
from pipelines.training.hiervl.config import HierVLTrainConfig
from pipelines.training.registry import TRAIN_CONFIG

SPLITS = {"seen": "test_seen", "held_out": "test_held_out"}
"""Name in metrics -> split of the world."""
_SEED = 0  # of the questions: the same ones for every method

Floats = NDArray[np.float32]


def planted_metric(split: str, name: str) -> str:
    """Return the name in MLflow of a metric of `planted_metrics`."""
    return f"planted/{split}/{name}"


def measure(checkpoint_uri: str, world: PlantedHierarchy) -> dict[str, Answers]:
    """Return the answers to the planted questions of both test splits by their names in MLflow.

    Raises:
        UserError: the checkpoint is damaged, or not of a HierVL.
    """
    embedder = ModelEmbedder(_load(checkpoint_uri))
    return {
        planted_metric(name, metric): answers
        for name, split in SPLITS.items()
        for metric, answers in planted_metrics(embedder, getattr(world, split), world.config, _SEED).items()
    }


def measure_leaks(world: PlantedHierarchy) -> dict[str, dict[str, float]]:
    """Return the accuracies of `leak_metrics` on the same questions: split -> name -> value."""
    return {
        name: {
            metric: answers.accuracy for metric, answers in leak_metrics(world, getattr(world, split), _SEED).items()
        }
        for name, split in SPLITS.items()
    }


class ModelEmbedder:
    """Unit vectors of a trained model; a clip is one row of features, rounded as a store keeps it."""

    def __init__(self, model: HierVL) -> None:
        self._model = model.eval()

    @torch.inference_mode()
    def clips(self, features_ND: Floats) -> Floats:
        """See `PlantedEmbedder`."""
        clip_N1D = _stored(features_ND)[:, None]
        return _unit(self._model.clip_encoder(clip_N1D, torch.ones(clip_N1D.shape[:2], dtype=torch.bool)))

    @torch.inference_mode()
    def videos(self, features_VCD: Floats) -> Floats:
        """See `PlantedEmbedder`."""
        clips_VC1D = _stored(features_VCD)[:, :, None]
        real_VC1 = torch.ones(clips_VC1D.shape[:3], dtype=torch.bool)
        return _unit(self._model.embed_video(clips_VC1D, real_VC1, real_VC1[..., 0]))

    @torch.inference_mode()
    def texts(self, vectors_NX: Floats) -> Floats:
        """See `PlantedEmbedder`."""
        return _unit(self._model.embed_text(torch.from_numpy(vectors_NX)))


def _load(uri: str) -> HierVL:
    info = read_info(uri)
    config = build_config(TRAIN_CONFIG, info.config, origin=f"{uri}, config")
    if not isinstance(config, HierVLTrainConfig):
        raise UserError(
            what=f"checkpoint {uri}", got=f"a training of {config.system}", expected="hiervl", do="name another one"
        )
    model = build_hiervl(config.model, sum(info.d_in), info.d_text or 0)
    load_weights(model, read_model_state(uri), uri)
    return model


def _stored(features: Floats) -> Tensor:
    return torch.from_numpy(features.astype(np.float16).astype(np.float32))


def _unit(x_NE: Tensor) -> Floats:
    vectors_NE: Floats = functional.normalize(x_NE.float(), dim=-1).numpy()
    return vectors_NE
