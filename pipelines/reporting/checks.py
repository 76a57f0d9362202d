"""What makes figures incomparable: other samples, another store, a seed twice, figures that contradict each other."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hvlm.errors import UserError
from pipelines.evaluation.run_layout import metric_name, samples_file
from pipelines.reporting.config import ReportConfig
from pipelines.reporting.methods import Method
from pipelines.reporting.runs import EvaluatedRun

# MLflow and the file hold the same float64; a database may keep one digit less.
_SAME = 1e-9
_NUM_NAMED = 3


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A run that must not stand beside the others as if nothing were, and why."""

    run_id: str
    method: str
    message: str


def find_mismatches(methods: Sequence[Method], config: ReportConfig) -> list[Mismatch]:
    """Return what differs from the first run of the first method, and what a run says of itself twice and differently.

    Raises:
        UserError: there is something, and `on_mismatch` is refuse.
    """
    found = [
        Mismatch(run.run_id, method.name, message)
        for method in methods
        for run in method.runs
        for message in (*_other_set(run, methods[0].runs[0]), *_contradictions(run, config.store_mark or ""))
    ]
    found += [mismatch for method in methods for mismatch in _same_seed(method)]
    if found and config.on_mismatch == "refuse":
        said = [f"run {mismatch.run_id} ({mismatch.method}): {mismatch.message}" for mismatch in found]
        raise UserError(
            what="the runs to compare",
            got="; ".join(said),
            expected=f"figures of the same samples as run {methods[0].runs[0].run_id}, each seed once",
            do="evaluate them alike, leave runs out, or see them flagged in red: on_mismatch=flag",
        )
    return found


def sample_keys(run: EvaluatedRun, split: str) -> list[str] | None:
    """Return the sorted ids of a split's samples; None where the run does not have them."""
    frame = run.samples.get(split)
    return None if frame is None else sorted(frame["key"].to_list())


def _other_set(run: EvaluatedRun, reference: EvaluatedRun) -> Iterator[str]:
    if run.manifest_hash != reference.manifest_hash:
        yield f"store manifest {run.manifest_hash[:12]} instead of {reference.manifest_hash[:12]}"
    splits, wanted = set(run.document["splits"]), set(reference.document["splits"])
    if splits != wanted:
        yield f"splits {', '.join(sorted(splits))} instead of {', '.join(sorted(wanted))}"
    for split in sorted(splits):
        have = sample_keys(run, split)
        if have is None:
            yield f"no {samples_file(split)}, so that nobody knows its samples"
        elif len(have) != run.document["splits"][split]:
            yield f"{len(have)} rows in {samples_file(split)}, {run.document['splits'][split]} samples in metrics.json"
        known = sample_keys(reference, split) if split in wanted else None
        if have is not None and known is not None and have != known:
            lacks, more = sorted(set(known) - set(have)), sorted(set(have) - set(known))
            counts = f"{len(have)} instead of {len(known)}"
            yield f"{split} has other samples, {counts}{_some('lacks', lacks)}{_some('has also', more)}"


def _contradictions(run: EvaluatedRun, mark: str) -> Iterator[str]:
    for name, row in run.rows.items():
        value, logged = row["ours"], run.logged.get(metric_name(name, mark))
        if value is not None and logged is None:
            yield f"{name} is {value:.6g} in metrics.json and not logged at step {run.step}"
        elif value is not None and logged is not None and not math.isclose(value, logged, rel_tol=_SAME, abs_tol=_SAME):
            yield f"{name} is {value:.6g} in metrics.json and {logged:.6g} in MLflow at step {run.step}"


def _same_seed(method: Method) -> Iterator[Mismatch]:
    first: dict[str, str] = {}
    for run in method.runs:
        if run.seed is not None and run.seed in first:
            message = f"seed {run.seed} a second time, after run {first[run.seed]}: no independent repetition"
            yield Mismatch(run.run_id, method.name, message)
        first.setdefault(run.seed or run.run_id, run.run_id)


def _some(verb: str, keys: Sequence[str]) -> str:
    return f", {verb} {_listed(keys)}" if keys else ""


def _listed(keys: Iterable[str]) -> str:
    keys = list(keys)
    more = len(keys) - _NUM_NAMED
    return ", ".join(f"'{key}'" for key in keys[:_NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
