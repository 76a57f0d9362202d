"""What a system's evaluation hands over, whatever was evaluated: rows, figures and files of each split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

from pipelines.evaluation.metric_table import Absent, MetricRow


class Figure(NamedTuple):
    """A figure of the report: SVG that we drew (matplotlib has escaped the labels in it), and its caption."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Section:
    """One group of metrics in the report."""

    title: str
    rows: Sequence[MetricRow]
    figures: Sequence[Figure] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitResult:
    """Everything measured on one split.

    Args:
        split: its name.
        samples: a row per sample with its id as `key`, and what comparisons of runs read of it.
        sections: by the name of the group, in the order of the report.
        absent: metrics that could not be calculated, and why.
        per_class_ap: `{task: {column: {class: AP}}}` for metrics.json.
        facts: what else metrics.json says of the split, by name.
        predictions: names of files -> what is written into them, e.g. submissions.
    """

    split: str
    samples: pl.DataFrame
    sections: Mapping[str, Section]
    absent: Sequence[Absent] = ()
    per_class_ap: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    predictions: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def rows(self) -> list[MetricRow]:
        """The rows of all sections."""
        return [row for section in self.sections.values() for row in section.rows]
