"""The classifier that a supervised training made, as an evaluation reads it.

Shapes: C classes, D width of the video's node.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra import storage
from pipelines.training.baselines.labels import LABELS_FILE, read_labels
from pipelines.training.checkpoints import FOLDER, read_info, read_model_state


@dataclass(frozen=True, slots=True)
class TrainedClassifier:
    """Linear layer of a `VideoClassifier` with the names of its classes; `start` is what it was fine-tuned from, None
    where the training began with new weights.
    """

    classes: tuple[str, ...]
    weight_CD: NDArray[np.float32]
    bias_C: NDArray[np.float32]
    start: str | None

    def logits(self, node_D: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (C,) of a video's node."""
        return np.asarray(self.weight_CD @ node_D + self.bias_C, dtype=np.float32)


def load_classifier(uri: str) -> TrainedClassifier | None:
    """Return the classifier of a checkpoint.

    None where the checkpoint is not of a supervised training, or stands without its training's other files, which name
    the classes.

    Raises:
        UserError: the checkpoint is damaged.
    """
    info = read_info(uri)
    output_uri = uri.rpartition(f"/{FOLDER}/")[0]
    if info.config.get("system") != "supervised" or not output_uri:
        return None
    if not storage.exists(storage.join(output_uri, LABELS_FILE)):
        return None
    state = read_model_state(uri)
    return TrainedClassifier(
        classes=read_labels(output_uri).classes,
        weight_CD=state["head.1.weight"].float().numpy(),
        bias_C=state["head.1.bias"].float().numpy(),
        start=info.config.get("start_checkpoint"),
    )
