"""The labels of a store's videos: made once at the start, read by every worker.

Shapes: B videos, C classes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hvlm.data.samples import SampleMeta
from hvlm.errors import UserError
from infra import storage

LABELS_FILE = "labels.json"


@dataclass(frozen=True)
class LabelTable:
    """`classes`: the labels of the train split, sorted. `labels`: of every video, by its key."""

    classes: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}

    def matrix(self, keys: Sequence[str]) -> Tensor:
        """Return bool (B, C); a label that no training video has stands nowhere."""
        label_BC = torch.zeros(len(keys), len(self.classes), dtype=torch.bool)
        for row, key in enumerate(keys):
            for name in self.labels[key]:
                if name in self._number:
                    label_BC[row, self._number[name]] = True
        return label_BC


def collect_labels(metas: Iterable[SampleMeta]) -> LabelTable:
    """Return the annotated labels of the videos.

    Raises:
        UserError: fewer than two classes in the train split.
    """
    labels: dict[str, tuple[str, ...]] = {}
    classes: set[str] = set()
    for meta in metas:
        labels[meta.key] = tuple(sorted({str(item["label"]) for item in meta.annotations}))
        if meta.split == "train":
            classes.update(labels[meta.key])
    if len(classes) < 2:
        raise UserError(
            what="labels of the store's train split",
            got=f"{len(classes)} classes",
            expected="2 or more, to train a classifier",
            do="extract with source.annotations_uri, or train another system",
        )
    return LabelTable(tuple(sorted(classes)), labels)


def write_labels(output_uri: str, table: LabelTable) -> None:
    """Write the table into a training's output."""
    content = {"classes": table.classes, "labels": table.labels}
    storage.atomic_write(storage.join(output_uri, LABELS_FILE), json.dumps(content, sort_keys=True).encode() + b"\n")


def read_labels(output_uri: str) -> LabelTable:
    """Return what `write_labels` wrote."""
    content = json.loads(storage.read_bytes(storage.join(output_uri, LABELS_FILE)))
    return LabelTable(tuple(content["classes"]), {key: tuple(names) for key, names in content["labels"].items()})
