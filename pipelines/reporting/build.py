"""One comparison page from config to MLflow: read → group → check → compare → write → log."""

from dataclasses import dataclass

from hvlm.errors import UserError
from infra import scratch, storage
from infra.cluster import reject_relative_paths_in_job
from infra.config_io import dump_config, flatten_config
from infra.tracking import open_run, resolve_tracking_uri, tracking_errors
from pipelines.reporting.checks import find_mismatches
from pipelines.reporting.comparison import compare
from pipelines.reporting.config import ReportConfig
from pipelines.reporting.methods import group_methods
from pipelines.reporting.page import Comparison, render_comparison
from pipelines.reporting.runs import REPORT_TAG, read_runs

PAGE = "comparison.html"


@dataclass(frozen=True, slots=True)
class ReportOutcome:
    """What a report gave: what the page says, where it stands, the MLflow run that has it."""

    found: Comparison
    page_uri: str
    run_id: str
    tracking_uri: str


def build_report(config: ReportConfig, command: str) -> ReportOutcome:
    """Write the comparison page and log it to a run of its own.

    Args:
        config: of the report.
        command: that makes this page, printed on it.

    Raises:
        UserError: a run does not exist, none has an evaluation, they are not comparable and `on_mismatch` is refuse, or
            MLflow fails.
    """
    reject_relative_paths_in_job({"output_uri": config.output_uri})
    evaluated, without = read_runs(config)
    if not evaluated:
        said = "; ".join(f"{run.run_id}: {run.why}" for run in without)
        raise UserError(
            what="the runs to compare", got=said, expected="evaluated runs", do="run jobs.evaluate on them first"
        )
    methods = group_methods(evaluated, config)
    mismatches = find_mismatches(methods, config)
    found = Comparison(methods, compare(methods, config), mismatches, without)
    page = render_comparison(found, config, command).encode()
    page_uri = storage.join(storage.absolute_uri(config.output_uri), PAGE)
    storage.atomic_write(page_uri, page)
    return ReportOutcome(found, page_uri, _log(config, found, page), resolve_tracking_uri(config.tracking))


def _log(config: ReportConfig, found: Comparison, page: bytes) -> str:
    """A page that is made again in the same place replaces the one in its run."""
    tracker = open_run(config.tracking, storage.join(config.output_uri, "mlflow_run.json"))
    run_ids = [run.run_id for method in found.methods for run in method.runs]
    with tracking_errors(tracker.uri), scratch.folder() as folder:
        tracker.log_config(flatten_config(config), dump_config(config))
        tracker.set_tags({REPORT_TAG: ",".join(run_ids)})
        path = folder / PAGE
        path.write_bytes(page)
        tracker.log_file(str(path))
        tracker.finish("FINISHED")
    return tracker.run_id
