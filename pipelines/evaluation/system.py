"""What the evaluation knows of what it evaluates. Each system is a package beside this module; `registry` names them.

Inputs, files, report, MLflow and the jobs know only this.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from pipelines.evaluation.results import SplitResult


class EvaluatedSystem(Protocol):
    """A checkpoint of one system, checked against its store before Ray starts."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What metrics.json says of the evaluation beyond what all evaluations say."""
        ...

    def measure(self) -> list[SplitResult]:
        """Return the results of every split that the configuration names; Ray must be connected.

        Raises:
            ConservationError: a sample was lost or embedded twice.
        """
        ...
