"""The table of an evaluation: per metric ours beside raw features, floor and chance, with its count and split."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

OURS, RAW = "ours", "raw"
KINDS = (OURS, RAW)

Better = Literal["higher", "lower", "neither"]
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """One metric of one split; NaN or None where it does not exist.

    Args:
        name: `{split}/{level}/…`, fractions in [0, 1] unless the name ends in rank or effective_rank.
        ours, raw: the trained model and the frozen features it read, on the same protocol.
        floor: for localisation, one segment over the whole video with the video classifier's score.
        chance: random or constant guessing, calculated or simulated.
        count, unit: what the mean is over, e.g. 40 videos.
        better: which direction is better; `neither` for figures that only explain others.
        headline: shown in the short table.
        group: the section of the report that it stands in.
        held_out: whether neither the model nor its checkpoint was learnt or chosen on these videos.
    """

    name: str
    ours: float | None = None
    raw: float | None = None
    floor: float | None = None
    chance: float | None = None
    count: int = 0
    unit: str = "videos"
    better: Better = "higher"
    headline: bool = False
    group: str = ""
    held_out: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class Absent:
    """Metrics that could not be calculated, and why."""

    metrics: str
    why: str


@dataclass(frozen=True, slots=True)
class GroupResult:
    """What one group of metrics gives: rows, what is absent, and arrays for plots."""

    rows: list[MetricRow]
    absent: list[Absent]
    details: dict[str, Any]


def rows_of(values: Mapping[str, Mapping[str, float]], prefix: str, **shared: Any) -> list[MetricRow]:
    """Return one row per metric name from `{column: {name: value}}`, columns ours, raw, floor, chance; order of first
    appearance.
    """
    names = list(dict.fromkeys(name for column in values.values() for name in column))
    rows = []
    for name in names:
        cells: dict[str, Any] = {column: known[name] for column, known in values.items() if name in known}
        rows.append(MetricRow(name=f"{prefix}/{name}", **cells, **shared))
    return rows


def flat_metrics(rows: Iterable[MetricRow]) -> dict[str, float]:
    """Return `{metric name: value}` for MLflow: ours under the plain name, the others under `raw/`, `floor/` and
    `chance/`.
    """
    flat: dict[str, float] = {}
    for row in rows:
        for column, prefix in ((OURS, ""), (RAW, "raw/"), ("floor", "floor/"), ("chance", "chance/")):
            value = getattr(row, column)
            if known(value):
                flat[prefix + row.name] = value
    return flat


def with_note(row: MetricRow, note: str) -> MetricRow:
    """Return the row with a further note; an empty one changes nothing."""
    return replace(row, note="; ".join(part for part in (row.note, note) if part))


def known(value: float | None) -> bool:
    """Return whether a cell holds a number."""
    return value is not None and math.isfinite(value)


def beats_raw(row: MetricRow) -> bool | None:
    """Return whether ours is better than raw, and than floor and chance where they are known: to be ahead of features
    that know nothing is no gain. None when one is missing, the videos are not held out or no direction is better.
    """
    if (
        not row.held_out
        or row.better == "neither"
        or row.ours is None
        or row.raw is None
        or not (known(row.ours) and known(row.raw))
    ):
        return None
    sign = 1.0 if row.better == "higher" else -1.0
    rivals = [row.raw, *(rival for rival in (row.floor, row.chance) if rival is not None and known(rival))]
    return all(sign * row.ours > sign * rival + _ROUNDING for rival in rivals)


def format_value(value: float | None) -> str:
    """Return a cell as text, a dash for a missing one."""
    if value is None or not math.isfinite(value):
        return "-"
    # + 0.0 turns the -0.0 that rounding may leave into 0.0
    return f"{round(value, 3) + 0.0:.3f}" if abs(value) < 10 else f"{value:.1f}"


def text_table(rows: Sequence[MetricRow]) -> str:
    """Return the headline rows as aligned text, with a last line that counts where ours beats raw."""
    shown = [row for row in rows if row.headline]
    if not shown:
        return "no metric could be calculated; metrics.json says why"
    width = max(len(row.name) for row in shown)
    lines = [f"{'metric':<{width}} {'ours':>8} {'raw':>8} {'floor':>8} {'chance':>8}  n"]
    for row in shown:
        cells = " ".join(f"{format_value(value):>8}" for value in (row.ours, row.raw, row.floor, row.chance))
        lines.append(f"{row.name:<{width}} {cells}  {row.count} {row.unit}")
    decided = [beats for row in shown if (beats := beats_raw(row)) is not None]
    lines.append(
        f"ours is better than the raw features (and floor and chance) on {sum(decided)} of {len(decided)} metrics"
    )
    return "\n".join(lines)


def plain_rows(rows: Iterable[MetricRow]) -> list[dict[str, Any]]:
    """Return rows as JSON-able mappings with whether ours beats raw; NaN becomes null."""
    return [
        {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(row).items()
        }
        | {"beats_raw": beats_raw(row)}
        for row in rows
    ]
