"""MLflow: one run per experiment, whatever restarts it goes through.

The run's id is kept in a small file beside the checkpoints, so that a job that is started again goes on in the same
run, with steps that only grow. The default is an SQLite file under `runs/` with its artifacts beside it;
`MLFLOW_TRACKING_URI` names a server and wins. Credentials come from the environment (MLFLOW_TRACKING_USERNAME, ...)
and whatever looks like one is never logged.
"""

import json
import logging
import math
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient

from hvlm.config import Config, require
from hvlm.errors import UserError
from infra import storage
from infra.cluster import in_submitted_job

logger = logging.getLogger(__name__)

GIT_COMMIT_VARIABLE = (
    "HVLM_GIT_COMMIT"  # set it where the code runs without its .git folder (a packed working directory)
)
_MAX_PARAM_CHARS = 500  # older MLflow servers refuse more
_MAX_BATCH = 900  # the REST API takes at most 1000 metrics at once
_SECRET_KEY = re.compile(r"password|passwd|secret|token|api_?key|access_?key|credential", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)[^/\s]+@")  # up to the last @: a password may hold one
_SIGNED_QUERY = re.compile(r"\?[^\s]*(?:signature|sig|token|credential|key|password)=[^\s]*", re.IGNORECASE)
_WITHOUT_SCHEME = ("databricks", "databricks-uc", "uc")  # names that MLflow knows, not folders


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingConfig(Config):
    """Where and how a run is tracked. `uri` null: `MLFLOW_TRACKING_URI`, else SQLite at `runs/mlflow.db` of the
    working directory. `tags` are set on the run at every start."""

    uri: str | None = None
    experiment: str = "hierarchicalvlm"
    run_name: str | None = None
    system_metrics_interval_s: float = 10.0
    """Seconds between two readings of CPU, memory, disk, network and GPU; 0 turns them off."""
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        interval = self.system_metrics_interval_s
        require(
            interval >= 0, what="tracking.system_metrics_interval_s", got=interval, expected="0 or more", do="0 is off"
        )
        require(
            self.experiment != "", what="tracking.experiment", got="''", expected="a name", do="name the experiment"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReference:
    """The data that a run read: a store at a pinned version."""

    name: str
    store_uri: str
    version: int
    manifest_hash: str
    num_samples: int


def resolve_tracking_uri(config: TrackingConfig) -> str:
    """Return the tracking URI, absolute, so that processes with another working directory mean the same place."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or config.uri or "sqlite:///runs/mlflow.db"
    path = _local_path(uri)
    if path is None:
        return uri
    require(
        path.is_absolute() or not in_submitted_job(),
        what="tracking.uri",
        got=f"{uri} in a submitted job",
        expected="a server (http://…) or sqlite:////absolute/path",
        do="set tracking.uri or MLFLOW_TRACKING_URI; Ray deletes the job's own folder afterwards",
    )
    if not uri.startswith("sqlite:///"):
        return uri if path.is_absolute() else path.absolute().as_uri()
    path = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            what="tracking.uri", got=uri, expected="a place that may be written", do="change tracking.uri"
        ) from error
    return f"sqlite:///{path}"


def open_run(config: TrackingConfig, record_uri: str) -> "RunTracker":
    """Return the run that `record_uri` (a small JSON file) names, or a new one, named there from now on.

    Raises:
        UserError: the tracking server cannot be reached or refuses.
    """
    uri = resolve_tracking_uri(config)
    with tracking_errors(uri):
        client = MlflowClient(uri)
        known = _recorded_run(client, record_uri)
        if known is not None:
            client.update_run(known, status="RUNNING")
            resumed = RunTracker(uri, known, resumed=True)
            if config.tags:
                resumed.set_tags(config.tags)
            return resumed
        experiment = _experiment_id(client, uri, config.experiment)
        run = client.create_run(experiment, run_name=config.run_name, tags=git_tags() | config.tags)
    tracker = RunTracker(uri, run.info.run_id)
    content = {"run_id": tracker.run_id, "experiment": config.experiment, "tracking_uri": redact(uri)}
    storage.atomic_write(record_uri, json.dumps(content, indent=1).encode() + b"\n")
    return tracker


def end_run(config: TrackingConfig, record_uri: str, status: Literal["FAILED", "KILLED"]) -> None:
    """Set the state of the run that `record_uri` names, if it is still said to run: its own process was killed.

    Raises:
        UserError: the tracking server cannot be reached or refuses.
    """
    uri = resolve_tracking_uri(config)
    with tracking_errors(uri):
        client = MlflowClient(uri)
        known = _recorded_run(client, record_uri)
        if known is not None and client.get_run(known).info.status == "RUNNING":
            client.set_terminated(known, status)


@contextmanager
def tracking_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow says within the block into the user's error.

    Raises:
        UserError: the tracking server cannot be reached or refuses, or its files cannot be written (a full disk).
    """
    try:
        yield
    except (MlflowException, OSError) as error:  # artifacts are plain files, or uploads by requests, whose are OSErrors
        raise UserError(
            what="MLflow tracking",
            got=f"{redact(uri)}: {redact(str(error))[:300]}",
            expected="a server or SQLite file that can be written",
            do="check the URI, and that its disk has room; then run the same command again",
        ) from error


class RunTracker:
    """Writes to one MLflow run. Metrics are buffered and sent at most every few seconds, so that tracking costs no
    training time.

    Args:
        uri: absolute tracking URI.
        run_id: of an existing run.
        resumed: metrics may exist already; a value for a step that the run has is not written again.
    """

    def __init__(self, uri: str, run_id: str, *, resumed: bool = False, flush_every_s: float = 5.0) -> None:
        self.uri, self.run_id, self.resumed = uri, run_id, resumed
        self._client = MlflowClient(uri)
        self._flush_every_s = flush_every_s
        self._buffer: list[Metric] = []
        self._last_step: dict[str, int] = {}
        self._flushed_s = time.monotonic()
        self._monitor: Any = None

    def log_config(self, flat: Mapping[str, object], resolved: Mapping[str, object]) -> None:
        """Log a resolved configuration as parameters and as the artifact `config.json`.

        Parameters are final: only those that the run lacks are written, all of them where an earlier start ended
        before it came to this.
        """
        known = self._client.get_run(self.run_id).data.params
        if not known:
            self._client.log_dict(self.run_id, _redacted(dict(resolved)), "config.json")
        params = [Param(key, _param_value(key, value)) for key, value in sorted(flat.items()) if key not in known]
        for start in range(0, len(params), 100):  # the REST API's limit
            self._client.log_batch(self.run_id, params=params[start : start + 100])

    def log_dataset(self, dataset: DatasetReference) -> None:
        """Log the store at its pinned version as the run's training input, and as tags to search for."""
        source = {"uri": redact(dataset.store_uri), "version": dataset.version, "manifest_hash": dataset.manifest_hash}
        entity = Dataset(
            name=dataset.name[:500],
            digest=dataset.manifest_hash[:36],
            source_type="feature_store",
            source=json.dumps(source),
            profile=json.dumps({"num_samples": dataset.num_samples}),
        )
        tags = [InputTag("mlflow.data.context", "training")]
        self._client.log_inputs(self.run_id, [DatasetInput(entity, tags)])
        self.set_tags(
            {
                "store.uri": dataset.store_uri,
                "store.version": dataset.version,
                "store.manifest_hash": dataset.manifest_hash,
            }
        )

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Buffer metrics; a key's steps only grow, so a step that is already there (after a restart) is left as it
        is."""
        now_ms = int(time.time() * 1000)
        for key, value in metrics.items():
            if step <= self._last(key):
                continue
            self._last_step[key] = step
            if math.isfinite(value):
                self._buffer.append(Metric(key, value, now_ms, step))
            else:  # a database may refuse NaN or store it as 0; a tag says it plainly
                self.set_tags({f"not_finite.{key}": f"{value} at step {step}"})
        if time.monotonic() - self._flushed_s >= self._flush_every_s:
            self.flush()

    def flush(self) -> None:
        """Send what is buffered."""
        for start in range(0, len(self._buffer), _MAX_BATCH):
            self._client.log_batch(self.run_id, metrics=self._buffer[start : start + _MAX_BATCH])
        self._buffer.clear()
        self._flushed_s = time.monotonic()

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set or replace tags."""
        self._client.log_batch(
            self.run_id, tags=[RunTag(key, redact(str(value))[:5000]) for key, value in tags.items()]
        )

    def log_checkpoint(self, step: int, uri: str, metrics: Mapping[str, float], *, best: bool) -> None:
        """Log a checkpoint by reference: a small JSON artifact with its URI and metrics, and the tags
        `checkpoint.latest` / `.best`."""
        content = {"step": step, "uri": redact(uri), "metrics": dict(metrics)}
        self._client.log_dict(self.run_id, content, f"checkpoints/step-{step:09d}.json")
        self.set_tags(
            {"checkpoint.latest": uri} | ({"checkpoint.best": uri, "checkpoint.best_step": step} if best else {})
        )

    def log_file(self, path: str, folder: str | None = None) -> None:
        """Log a local file as an artifact."""
        self._client.log_artifact(self.run_id, path, folder)

    def start_system_metrics(self, interval_s: float) -> None:
        """Log CPU, memory, disk, network and GPU of this machine every `interval_s` until `close`; 0 means not at
        all."""
        if interval_s > 0 and self._monitor is None:
            logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
            self._monitor = SystemMetricsMonitor(
                self.run_id, sampling_interval=interval_s, resume_logging=self.resumed, tracking_uri=self.uri
            )
            self._monitor.start()

    def close(self) -> None:
        """Send what is buffered and stop the system metrics; the run stays open."""
        self.flush()
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Close, and set the run's final state."""
        self.close()
        self._client.set_terminated(self.run_id, status)

    @contextmanager
    def finished_on_error(self) -> Iterator[None]:
        """Set the run's state to FAILED, or KILLED by an interrupt, when the block is left by an error."""
        status: Literal["FAILED", "KILLED"] | None = "FAILED"
        try:
            yield
            status = None
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C; once connected, Ray makes the latter of SIGTERM
            status = "KILLED"
            raise
        finally:
            if status is not None:
                with suppress(MlflowException, OSError):  # the first error is the one to tell
                    self.finish(status)

    def _last(self, key: str) -> int:
        if key not in self._last_step:
            history = self._client.get_metric_history(self.run_id, key) if self.resumed else []
            self._last_step[key] = max((metric.step for metric in history), default=-1)
        return self._last_step[key]


def git_tags() -> dict[str, str]:
    """Return the commit of the working directory as tags; from `HVLM_GIT_COMMIT` where there is no repository."""
    commit, dirty = os.environ.get(GIT_COMMIT_VARIABLE), ""
    if not commit:
        commit = _git("rev-parse", "HEAD")
        dirty = str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower()
    return (
        {"git.commit": commit, "mlflow.source.git.commit": commit, "git.dirty": dirty}
        if commit
        else {"git.commit": "unknown"}
    )


def redact(text: str) -> str:
    """Return a text with the user part and signed queries of URIs blanked."""
    return _SIGNED_QUERY.sub("?***", _USER_INFO.sub("***@", text))


def ui_command(uri: str) -> str:
    """Return what opens the MLflow UI on a tracking URI; it runs in a shell whether or not the environment is
    active."""
    if uri.startswith("http"):
        return f"open {redact(uri)}"
    program = Path(sys.executable).parent / "mlflow"
    return shlex.join([str(program) if program.is_file() else "mlflow", "ui", "--backend-store-uri", redact(uri)])


def _local_path(uri: str) -> Path | None:
    """Return the path of an SQLite file or of a folder of runs, as it is written; None for anything else."""
    if uri in _WITHOUT_SCHEME:
        return None
    for prefix in ("sqlite:///", "file://", "file:"):
        if uri.startswith(prefix):
            return Path(uri.removeprefix(prefix))
    return None if ":" in uri else Path(uri)


def _recorded_run(client: MlflowClient, record_uri: str) -> str | None:
    if not storage.exists(record_uri):
        return None
    run_id = str(json.loads(storage.read_bytes(record_uri))["run_id"])
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        logger.warning("the run %s of %s is not on this MLflow server: a new run continues it", run_id, record_uri)
        return None
    if run.info.lifecycle_stage != "active":
        logger.warning("the run %s of %s was deleted in MLflow: a new run continues it", run_id, record_uri)
        return None
    return run_id


def _experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            raise UserError(
                what="tracking.experiment",
                got=f"'{name}', deleted",
                expected="an active one",
                do="restore or rename it",
            )
        return str(found.experiment_id)
    location = None
    if uri.startswith("sqlite:///"):
        location = (Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        found = client.get_experiment_by_name(name)  # another job made it in between
        if found is None:
            raise
        return str(found.experiment_id)


def _param_value(key: str, value: object) -> str:
    return "***" if _SECRET_KEY.search(key) and value else redact(str(value))[:_MAX_PARAM_CHARS]


def _redacted(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {name: _redacted(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item, key) for item in value]
    if isinstance(value, str):
        return "***" if value and _SECRET_KEY.search(key) else redact(value)
    return value


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
