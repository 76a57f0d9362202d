"""The page of gates and methods: one HTML file, made of what MLflow has of the runs."""

from collections.abc import Sequence
from pathlib import Path

from hvlm.synthetic.planted_metrics import CHANCE
from pipelines.evaluation.page import page_template
from pipelines.science.gates import Gate, mean_and_std
from pipelines.science.measure import SPLITS
from pipelines.science.runs import TrialRun, by_method


def render_page(gates: Sequence[Gate], runs: Sequence[TrialRun], facts: Sequence[tuple[str, str]]) -> str:
    """Return the page.

    Args:
        gates: as judged.
        runs: that they were judged from.
        facts: (name, value) lines about where the figures come from.
    """
    return page_template("science.html.j2", Path(__file__).parent).render(
        num_held=sum(gate.holds for gate in gates),
        gates=gates,
        tables=[(split, methods_table(runs, split)) for split in SPLITS],
        metrics=list(CHANCE),
        chance=[f"{value:.3f}" for value in CHANCE.values()],
        facts=facts,
        runs=sorted(runs, key=lambda run: (run.method, run.seed)),
    )


def methods_table(runs: Sequence[TrialRun], split: str) -> list[tuple[str, list[str]]]:
    """Return (method, mean ± std of every metric) of one test split."""
    values = by_method(runs, list(CHANCE), split)
    return [(method, [mean_and_std(each[name]) for name in CHANCE]) for method, each in values.items()]


def text_tables(gates: Sequence[Gate], runs: Sequence[TrialRun]) -> str:
    """Return the methods' and the gates' table as text, the gates last."""
    lines = []
    for split in SPLITS:
        rows = [(f"{split}:", list(CHANCE)), *methods_table(runs, split)]
        rows.append(("chance", [f"{value:.3f}" for value in CHANCE.values()]))
        widths = [max(len(cells[i]) for _, cells in rows) for i in range(len(CHANCE))]
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
