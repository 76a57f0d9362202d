"""The files beside the report: metrics.json, a parquet row per sample, and what systems predict."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.inputs import EvaluationInputs
from pipelines.evaluation.metric_table import plain_rows
from pipelines.evaluation.results import SplitResult
from pipelines.evaluation.run_layout import FORMAT_VERSION, samples_file


def metrics_json(
    config: EvaluateConfig, inputs: EvaluationInputs, facts: Mapping[str, Any], results: Sequence[SplitResult]
) -> dict[str, Any]:
    """Return what metrics.json holds: provenance, every row with its count, what is absent and why, per-class AP.

    Args:
        config: of the evaluation.
        inputs: what was evaluated.
        facts: of the system.
        results: of each split.
    """
    of_splits = {name: {result.split: result.facts.get(name) for result in results} for name in _fact_names(results)}
    return {
        "format_version": FORMAT_VERSION,
        "checkpoint": {
            "uri": inputs.checkpoint.uri,
            "step": inputs.checkpoint.step,
            "git_commit": inputs.info.git_commit,
        },
        "run_id": inputs.run_id,
        "system": config.system,
        "store": {
            "uri": inputs.manifest.store_uri,
            "version": inputs.manifest.version,
            "manifest_hash": inputs.manifest.manifest_hash,
            "encoders": inputs.manifest.encoders,
            "is_training_store": inputs.num_excluded is None,
            "num_excluded_training_videos": inputs.num_excluded or 0,
        },
        "splits": {result.split: result.samples.height for result in results},
        **facts,
        "seed": config.seed,
        "metrics": [row for result in results for row in plain_rows(result.rows)],
        "absent": [{"metrics": absent.metrics, "why": absent.why} for result in results for absent in result.absent],
        "per_class_ap": {result.split: result.per_class_ap for result in results},
        **of_splits,
    }


def split_files(result: SplitResult) -> dict[str, bytes]:
    """Return the files of one split by name: a row per sample, and its predictions."""
    buffer = io.BytesIO()
    result.samples.write_parquet(buffer)
    return {samples_file(result.split): buffer.getvalue(), **result.predictions}


def to_json(value: object) -> bytes:
    """Return JSON bytes; NaN is refused, it is no JSON."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _fact_names(results: Sequence[SplitResult]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.facts))
