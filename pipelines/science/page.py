"""The page of gates and methods: one HTML file, made of what MLflow has of the runs and of their single answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hvlm.metrics.comparison import paired_bootstrap
from hvlm.metrics.multiple_choice import wilson_interval
from pipelines.evaluation.page import page_template
from pipelines.science.gates import Gate, mean_and_std
from pipelines.science.measure import SPLITS
from pipelines.science.runs import TrialRun, by_method, measured

BASELINE = "sa"
"""The method that all others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """What stands beside the methods.

    Args:
        chance: what guessing gives, metric by metric.
        leaks: split -> check -> its accuracy on each seed's world.
        facts: (name, value) lines about where the figures come from.
    """

    chance: Mapping[str, float]
    leaks: Mapping[str, Mapping[str, Sequence[float]]]
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One method's value of one metric, ready to print."""

    value: str
    interval: str
    seeds: str
    difference: str


def render_page(gates: Sequence[Gate], runs: Sequence[TrialRun], background: Background) -> str:
    """Return the page.

    Args:
        gates: as judged.
        runs: that they were judged from.
        background: chance, leak checks and facts.
    """
    return page_template("science.html.j2", Path(__file__).parent).render(
        num_held=sum(gate.holds for gate in gates),
        gates=gates,
        tables=[(split, methods_table(runs, split, list(background.chance))) for split in SPLITS],
        metrics=list(background.chance),
        chance=[f"{value:.3f}" for value in background.chance.values()],
        leaks=[
            (split, name, mean_and_std(values), f"{background.chance[name.rpartition('/')[2]]:.3f}")
            for split, of_split in background.leaks.items()
            for name, values in of_split.items()
        ],
        facts=background.facts,
        runs=sorted(runs, key=lambda run: (run.method, run.seed)),
        updates=updates,
        baseline=BASELINE,
    )


def updates(run: TrialRun) -> str:
    """Return the steps of each level, and those of the training before it."""
    before = f" after {run.start_step} child" if run.start_step else ""
    return f"{run.updates('child')} child, {run.updates('parent')} parent{before}"


def methods_table(runs: Sequence[TrialRun], split: str, names: Sequence[str]) -> list[tuple[str, str, list[Cell]]]:
    """Return (method, its updates, a cell for each metric) of one test split."""
    methods = measured(runs)
    return [
        (method, updates(of_method[0]), [_cell(of_method, methods[BASELINE], (split, name)) for name in names])
        for method, of_method in methods.items()
    ]


def text_tables(gates: Sequence[Gate], runs: Sequence[TrialRun], chance: Mapping[str, float]) -> str:
    """Return the methods' and the gates' table as text, the gates last."""
    lines = []
    for split in SPLITS:
        values = by_method(runs, list(chance), split)
        rows = [(f"{split}:", list(chance))]
        rows += [(method, [mean_and_std(each[name]) for name in chance]) for method, each in values.items()]
        rows.append(("chance", [f"{value:.3f}" for value in chance.values()]))
        widths = [max(len(cells[i]) for _, cells in rows) for i in range(len(chance))]
        first = max(len(name) for name, _ in rows)
        lines += [
            "  ".join([name.ljust(first), *(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))])
            for name, cells in rows
        ]
        lines.append("")
    rows_of_gates = [
        ("gate", "required", "measured", ""),
        *((g.name, g.required, g.measured, g.verdict) for g in gates),
    ]
    widths = [max(len(row[i]) for row in rows_of_gates) for i in range(3)]
    lines += ["  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]).rstrip() for row in rows_of_gates]
    return "\n".join(lines)


def _cell(runs: Sequence[TrialRun], baseline: Sequence[TrialRun], what: tuple[str, str]) -> Cell:
    values = [run.planted(*what) for run in runs]
    credit_Q = np.concatenate([run.credit(*what) for run in runs])
    low, high = wilson_interval(float(credit_Q.mean()), len(credit_Q))
    return Cell(
        value=mean_and_std(values),
        interval=f"{low:.3f} to {high:.3f}",
        seeds=f"N={len(credit_Q)}; {' '.join(f'{value:.3f}' for value in values)}",
        difference="" if runs[0].method == BASELINE else _difference(runs, baseline, what),
    )


def _difference(runs: Sequence[TrialRun], baseline: Sequence[TrialRun], what: tuple[str, str]) -> str:
    """On the same questions of the seeds that both have."""
    of_baseline = {run.seed: run.credit(*what) for run in baseline}
    pairs = [(run.credit(*what), of_baseline[run.seed]) for run in runs if run.seed in of_baseline]
    if not pairs:
        return ""
    found = paired_bootstrap(*(np.concatenate(side) for side in zip(*pairs, strict=True)), seed=0)
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
