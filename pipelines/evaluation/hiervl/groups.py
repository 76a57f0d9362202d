"""What HierVL's evaluation knows of a group of metrics: what it asks for before videos are embedded, and its result."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipelines.evaluation.hiervl.places import Place
from pipelines.evaluation.hiervl.vectors import SplitVectors
from pipelines.evaluation.metric_table import Absent, MetricRow
from pipelines.evaluation.results import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a group gives of one split.

    Args:
        rows, absent, figures: as in the report.
        missing: videos that its files name and the split has not, with the number of entries lost to each.
        columns: `{column of the samples: {video's key: value}}`; a column `ours/…` or `raw/…` has the values whose mean
            is the metric of that name.
        per_class_ap: for metrics.json. predictions: names of files -> content.
    """

    rows: Sequence[MetricRow] = ()
    absent: Sequence[Absent] = ()
    figures: Sequence[Figure] = ()
    missing: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    per_class_ap: Mapping[str, Any] = field(default_factory=dict)
    predictions: Mapping[str, bytes] = field(default_factory=dict)


class Group(Protocol):
    """A group of metrics.

    `name`: of its section, `title`: its heading. `beside_text`: whether it compares with texts, raw features too.
    """

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def beside_text(self) -> bool: ...

    def places(self) -> Iterable[Place]:
        """Return the parts of videos that it needs beyond captions and whole videos, whatever the store has."""
        ...

    def texts(self) -> Iterable[str]:
        """Return the texts that it needs beyond captions and summaries."""
        ...

    def measure(self, vectors: SplitVectors) -> Outcome:
        """Return its metrics of a split."""
        ...


class StoreGroup:
    """A group that needs nothing beyond what the store says of its videos."""

    def places(self) -> Iterable[Place]:
        """Return nothing."""
        return ()

    def texts(self) -> Iterable[str]:
        """Return nothing."""
        return ()
