"""The acceptance gates of the planted world: what each method must and must not be able to do.

Gates compare means over the seeds. Where chance is required of permuted summaries, the mean must be near it and the
interval over the seeds must hold it: Student's t, 95 % over the three metrics together (Bonferroni).
Source: specification of HierVL, section 7.4.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Values = Mapping[str, Mapping[str, Sequence[float]]]
"""method -> metric of the seen test split -> its value for each seed."""
Histories = Mapping[str, Mapping[str, Sequence[float]]]
"""method -> training metric -> its values step by step."""

_CHANCE_METRICS = ("easy", "order", "shuffle")
_CONFIDENCE = 0.95
_CHANCE_SLACK = 0.06
"""As the specification has it where a model must not know the order: 0.50 ± 0.06."""
_EXACT = 1e-9
WORKERS_TOLERANCE = 1e-3
"""Float sums in another order, through a dozen steps of AdamW, which is nearly a sign; a factor 1/W would be 0.5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One line of the table."""

    name: str
    required: str
    measured: str
    holds: bool

    @property
    def verdict(self) -> str:
        """In words."""
        return "holds" if self.holds else "DOES NOT HOLD"


def judge(values: Values, workers: Histories, chance: Mapping[str, float]) -> list[Gate]:
    """Return all gates.

    Args:
        values: of sa, avg, no_positions, child_only, wo_joint and permuted.
        workers: of one_worker and two_workers, the same metrics at the same steps.
        chance: what guessing gives, metric by metric.
    """
    gates = [
        _at_least("SA names the phases: easy", values["sa"]["easy"], 0.80),
        _at_least("SA knows the order: order", values["sa"]["order"], 0.80),
        _at_least(
            "SA's order fits its text: shuffle, true - wrong text",
            _difference(values["sa"]["shuffle"], values["sa"]["shuffle_wrong"]),
            0.15,
        ),
        _at_least(
            "SA keeps the clips: clip40, SA - child-only",
            _difference(values["sa"]["clip40"], values["child_only"]["clip40"]),
            -0.03,
        ),
        _near("Avg knows no order: order", values["avg"]["order"], chance["order"], 0.06),
        _exact("Avg knows no order: shuffle", values["avg"]["shuffle"], chance["shuffle"]),
        _near("child-only knows no summary: easy", values["child_only"]["easy"], chance["easy"], 0.08),
        _near("SA without positions knows no order: order", values["no_positions"]["order"], chance["order"], 0.06),
        _at_least(
            "without joint training the clips are forgotten: clip40, SA - w/o joint",
            _difference(values["sa"]["clip40"], values["wo_joint"]["clip40"]),
            0.15,
        ),
    ]
    for name in _CHANCE_METRICS:
        gates.append(_at_chance(f"permuted summaries teach nothing: {name}", values["permuted"][name], chance[name]))
    return [*gates, _workers(workers["one_worker"], workers["two_workers"])]


def mean_and_std(values: Sequence[float]) -> str:
    """Return e.g. `0.900 ± 0.015 (n=5)`."""
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread} (n={len(values)})"


def _at_least(name: str, values: Sequence[float], least: float) -> Gate:
    return Gate(
        name=name, required=f"≥ {least:.2f}", measured=mean_and_std(values), holds=bool(np.mean(values) >= least)
    )


def _near(name: str, values: Sequence[float], centre: float, slack: float) -> Gate:
    holds = abs(float(np.mean(values)) - centre) <= slack
    return Gate(name=name, required=f"{centre:.2f} ± {slack:.2f}", measured=mean_and_std(values), holds=holds)


def _exact(name: str, values: Sequence[float], value: float) -> Gate:
    holds = all(abs(each - value) <= _EXACT for each in values)
    return Gate(name=name, required=f"{value:.2f} for each seed", measured=mean_and_std(values), holds=holds)


def _at_chance(name: str, values: Sequence[float], chance: float) -> Gate:
    # An interval alone would hold whatever is scattered widely enough.
    tail = (1 - _CONFIDENCE) / len(_CHANCE_METRICS) / 2
    half = stats.t.ppf(1 - tail, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    mean = float(np.mean(values))
    return Gate(
        name=name,
        required=f"interval holds {chance:.2f}, mean within {_CHANCE_SLACK:g}",
        measured=f"{mean_and_std(values)}, {mean - half:.3f} to {mean + half:.3f}",
        holds=abs(mean - chance) <= min(float(half), _CHANCE_SLACK),
    )


def _workers(one: Mapping[str, Sequence[float]], two: Mapping[str, Sequence[float]]) -> Gate:
    worst, num_steps = math.inf, 0
    if one.keys() == two.keys() and all(len(one[name]) == len(two[name]) > 0 for name in one):
        pairs = [pair for name in one for pair in zip(one[name], two[name], strict=True)]
        worst = max(abs(a - b) / max(abs(a), _EXACT) for a, b in pairs)
        num_steps = max(len(each) for each in one.values())
    return Gate(
        name=f"1 and 2 workers take the same steps: {', '.join(one)}",
        required=f"relative difference ≤ {WORKERS_TOLERANCE:g}",
        measured=f"{worst:.2g} at most in {num_steps} steps",
        holds=worst <= WORKERS_TOLERANCE,
    )


def _difference(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]
