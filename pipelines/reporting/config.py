"""Configuration of `jobs.report`."""

from dataclasses import dataclass, field
from typing import Literal

from hvlm.config import Config, require
from infra.tracking import TrackingConfig

BASELINE_RAW = "raw"


def _tracking() -> TrackingConfig:
    return TrackingConfig(experiment="reports", run_name="comparison", system_metrics_interval_s=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig(Config):
    """One comparison page, made from MLflow runs; give `run_ids`, `experiment`, or both.

    Args:
        output_uri: folder of the page.
        run_ids: MLflow runs.
        experiment: takes all its runs that `filter` lets through, oldest first; comparison pages are left out.
        filter: in MLflow's search syntax, e.g. 'tags."sweep.id" = "1a2b3c…"' or "params.epochs = '4'".
        title: heading of the page.
        splits: null is every split that was evaluated.
        store_mark: null is the evaluation on the training's own store; `store-1a2b3c4d` the one on that other store.
        metrics: patterns of metric names (`*/recall_at_?`) that are compared; null is the evaluation's headline.
        baseline: what every method is compared with: a method's name, or `raw` for the features that each read.
        method_tag: tag of the runs that names their method, set by sweeps; runs without it are named by the settings
            that differ.
        data_tag: tag of the runs that names their data, e.g. `activitynet-1.3`. Published figures count as comparable
            only where it says that the data are the published ones.
        not_method: patterns of parameters that tell no methods apart: runs that differ only in them are one method.
        on_mismatch: refuse, or flag in red, runs that were evaluated on different samples and the like.
        num_resamples, bootstrap_seed: of the paired bootstrap.
        tracking: where the runs are; `tracking.experiment` gets the page's own run.
    """

    output_uri: str
    run_ids: tuple[str, ...] = ()
    experiment: str | None = None
    filter: str | None = None
    title: str = "Comparison of methods"
    splits: tuple[str, ...] | None = None
    store_mark: str | None = None
    metrics: tuple[str, ...] | None = None
    baseline: str = BASELINE_RAW
    method_tag: str = "sweep.method"
    data_tag: str = "data.name"
    not_method: tuple[str, ...] = ("seed", "output_uri", "tracking.*", "cluster.*", "resources.*")
    on_mismatch: Literal["refuse", "flag"] = "refuse"
    num_resamples: int = 10_000
    bootstrap_seed: int = 0
    tracking: TrackingConfig = field(default_factory=_tracking)

    def __post_init__(self) -> None:
        require(
            bool(self.run_ids) or self.experiment is not None,
            what="run_ids, experiment",
            got="neither",
            expected="runs to compare",
            do="name run_ids=[…] or an experiment",
        )
        require(
            self.filter is None or self.experiment is not None,
            what="filter",
            got=f"'{self.filter}' without an experiment",
            expected="an experiment whose runs it filters",
            do="set experiment, or leave filter out",
        )
        require(
            len(set(self.run_ids)) == len(self.run_ids),
            what="run_ids",
            got="a run twice",
            expected="each run once",
            do="delete one",
        )
        require(
            self.num_resamples >= 100,
            what="num_resamples",
            got=self.num_resamples,
            expected="100 or more, for an interval of 95 %",
            do="set e.g. num_resamples: 10000",
        )
        require(
            self.bootstrap_seed >= 0,
            what="bootstrap_seed",
            got=self.bootstrap_seed,
            expected="0 or more",
            do="set e.g. 0",
        )
        for name in ("splits", "metrics"):
            require(
                getattr(self, name) != (), what=name, got="[]", expected="at least one", do=f"leave {name} out for all"
            )
