"""Which runs are one method: those that differ in nothing but the seed (and in where they ran and wrote)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hvlm.errors import UserError
from pipelines.reporting.config import BASELINE_RAW, ReportConfig
from pipelines.reporting.runs import EvaluatedRun

NOT_SET = "(not set)"


@dataclass(frozen=True, slots=True)
class Method:
    """Runs whose figures are averaged, in the order of their seeds, and the settings that they share."""

    name: str
    runs: tuple[EvaluatedRun, ...]
    settings: Mapping[str, str]


def group_methods(runs: Sequence[EvaluatedRun], config: ReportConfig) -> list[Method]:
    """Return the methods in the order in which their first runs come, the baseline first.

    A run without a seed parameter is a method of its own: nothing says that it repeats another one.

    Raises:
        UserError: no method is the baseline.
    """
    groups: dict[tuple[object, ...], list[EvaluatedRun]] = {}
    for run in runs:
        settings = tuple(sorted(_settings(run, config).items()))
        alone = run.run_id if run.seed is None else None
        groups.setdefault((run.tags.get(config.method_tag), settings, alone), []).append(run)
    unnamed = [Method(str(key[0] or ""), _by_seed(found), _settings(found[0], config)) for key, found in groups.items()]
    methods = [_named(method, unnamed) for method in unnamed]
    names = [method.name for method in methods]
    if methods and config.baseline not in (BASELINE_RAW, *names):
        raise UserError(
            what="baseline",
            got=config.baseline,
            expected=f"{BASELINE_RAW} or one of {', '.join(names)}",
            do="set baseline to one of them",
        )
    return sorted(methods, key=lambda method: method.name != config.baseline)


def differing_settings(methods: Sequence[Method]) -> dict[str, list[str]]:
    """Return `{key: value of each method}` for the keys in which at least two methods differ."""
    keys = sorted({key for method in methods for key in method.settings})
    values = {key: [method.settings.get(key, NOT_SET) for method in methods] for key in keys}
    return {key: of_methods for key, of_methods in values.items() if len(set(of_methods)) > 1}


def _settings(run: EvaluatedRun, config: ReportConfig) -> dict[str, str]:
    """What makes a run the method that it is: parameters, training data, and what the probes read of the model."""
    kept = {
        key: value
        for key, value in run.params.items()
        if not any(fnmatchcase(key, pattern) for pattern in config.not_method)
    }
    data = run.tags.get("store.manifest_hash")
    return (
        kept
        | ({"training data (manifest)": data[:12]} if data else {})
        | ({"evaluation: video_embedding": str(read)} if (read := run.document.get("video_embedding")) else {})
    )


def _by_seed(runs: Sequence[EvaluatedRun]) -> tuple[EvaluatedRun, ...]:
    return tuple(sorted(runs, key=lambda run: (len(run.seed or ""), run.seed or "", run.run_id)))


def _named(method: Method, methods: Sequence[Method]) -> Method:
    """Name by tag; where that is missing or shared, by the settings that differ among those of the same tag."""
    alike = [other for other in methods if other.name == method.name]
    if method.name and len(alike) == 1:
        return method
    keys = differing_settings(alike)
    label = ", ".join(f"{key}={method.settings.get(key, NOT_SET)}" for key in keys)
    twins = [other for other in alike if other.settings == method.settings]
    if not label or len(twins) > 1:  # runs without a seed
        label = ", ".join([*filter(None, [label]), f"run {method.runs[0].short_id}"])
    return Method(f"{method.name} ({label})" if method.name else label, method.runs, method.settings)
