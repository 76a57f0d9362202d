"""Connects a job to Ray: the cluster it was submitted to, the one in RAY_ADDRESS, or an embedded Ray in this process.

The same command therefore runs on a laptop and under `ray job submit`. Token authentication stays on in all three: an
embedded Ray gets a token that lives as long as the process, a cluster has the one of `ray get-auth-token --generate`.
"""

import logging
import math
import os
import secrets
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ray
from ray._private.state import state as ray_state

from hvlm.config import Config, require
from hvlm.errors import UserError

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
"""How long to wait for a cluster's port; `ray.init` itself was seen to wait for more than ten minutes."""

_CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")
_UNLIMITED = 10**9  # places on a node for what asks for nothing
_MIN_OBJECT_STORE_BYTES = 80_000_000  # Ray itself refuses less than 75 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig(Config):
    """Which Ray a job runs on.

    Attributes:
        address: `host:port` or "auto" joins that cluster, "local" starts an embedded Ray; None: the cluster of the
            submitted job or of RAY_ADDRESS, else an embedded Ray.
        num_cpus: CPUs of the embedded Ray; None: all that this process may use.
        num_gpus: GPUs of the embedded Ray; None: all that are visible.
        object_store_memory_bytes: shared memory of the embedded Ray; None: Ray's own choice (30 % of the memory).
    """

    address: str | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None
    object_store_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        address = self.address
        require(
            address is None or address in ("auto", "local") or _is_host_and_port(address),
            what="cluster.address",
            got=address,
            expected="host:port, auto or local",
            do="give the address that `ray start --head` printed, or leave it out",
        )
        _require_at_least("num_cpus", self.num_cpus, 1)
        _require_at_least("num_gpus", self.num_gpus, 0)
        _require_at_least("object_store_memory_bytes", self.object_store_memory_bytes, _MIN_OBJECT_STORE_BYTES)


class Bundle(NamedTuple):
    """What each of `num` tasks or actors asks of one node, e.g. {"CPU": 2, "GPU": 1}."""

    each: Mapping[str, float]
    num: int = 1


@contextmanager
def connect(config: ClusterConfig) -> Iterator[None]:
    """Hold a connection to Ray; an embedded Ray ends with the block, a joined cluster lives on.

    Inside a process that is already connected, that connection is used and left open.

    Raises:
        UserError: the cluster does not answer, or the address is none that a job can join.
    """
    if ray.is_initialized():
        yield
        return
    _quieten_ray()
    address = cluster_address(config)
    if address is None:
        ensure_token()
        num_cpus = config.num_cpus or available_cpus()
        logger.info("starting an embedded Ray on %d CPUs", num_cpus)
        with _own_sigterm():
            ray.init(
                "local",
                num_cpus=num_cpus,
                num_gpus=config.num_gpus,
                object_store_memory=config.object_store_memory_bytes,
                include_dashboard=False,
                logging_level=logging.WARNING,
            )
    else:
        _require_reachable(address)
        logger.info("joining the Ray cluster at %s", address)
        _join(address)
    try:
        yield
    finally:
        ray.shutdown()


def ensure_token() -> None:
    """Give an embedded Ray a token of its own, so that it need not write one into the home directory.

    Ray's loader keeps the first token it reads for the life of the process, so this one stays in the environment.
    """
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    if "RAY_AUTH_TOKEN" not in os.environ and not Path(path).is_file():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def cluster_address(config: ClusterConfig) -> str | None:
    """Return the address of the cluster to join, or None for an embedded Ray.

    Raises:
        UserError: RAY_ADDRESS holds a URL: the dashboard's (that one is for `ray job submit`) or a Ray Client's.
    """
    address = config.address or os.environ.get("RAY_ADDRESS") or None
    if address == "local":
        return None
    if address == "auto":
        return os.environ.get("RAY_ADDRESS") or "auto"
    if address is not None and "://" in address:
        raise UserError(
            what="RAY_ADDRESS",
            got=address,
            expected="host:port of a cluster, or unset",
            do="unset it to run here, or submit the command with `ray job submit --working-dir . -- python -m jobs.…`",
        )
    return address


def in_submitted_job() -> bool:
    """Return whether this process was started by `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def available_cpus(cgroup_file: Path = _CGROUP_CPU) -> int:
    """Return the CPUs that this process may use: its affinity mask, cut by the container's quota."""
    num_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cgroup_file.is_file():
        quota, period = cgroup_file.read_text(encoding="ascii").split()
        if quota != "max":
            num_cpus = min(num_cpus, math.ceil(int(quota) / int(period)))
    return max(1, num_cpus)


def total_resources() -> dict[str, float]:
    """Return the most that the connected cluster can have: what its nodes have now or its autoscaler may start."""
    totals = {name: float(amount) for name, amount in ray.cluster_resources().items()}
    for name, amount in (ray_state.get_max_resources_from_cluster_config() or {}).items():
        totals[name] = max(totals.get(name, 0.0), float(amount))
    return totals


def require_resources(bundles: Sequence[Bundle], *, what: str = "resources") -> None:
    """Refuse a configuration whose needs the connected cluster can never meet; Ray would wait for ever.

    Args:
        bundles: everything that must run at the same time.
        what: the config key behind the need, e.g. "resources.num_workers".

    Raises:
        UserError: naming what the cluster has and what to change.
    """
    totals = total_resources()
    needed: Counter[str] = Counter()
    bundles = _merged(bundles)
    for bundle in bundles:
        needed.update({name: amount * bundle.num for name, amount in bundle.each.items()})
    short = {name: amount for name, amount in needed.items() if amount > totals.get(name, 0.0)}
    if short:
        raise UserError(
            what=what,
            got=f"a need of {_listed(short)}",
            expected=f"at most what the Ray cluster has: {_listed({name: totals.get(name, 0.0) for name in short})}",
            do=f"lower {what}, or use a cluster with more {' and '.join(sorted(short))}",
        )
    for bundle in bundles:
        places = _num_places(bundle.each)
        if places < bundle.num:
            raise UserError(
                what=what,
                got=f"a need of {bundle.num} × ({_listed(bundle.each)}), each on one node",
                expected=f"at most {places}: so many have room on the nodes of the Ray cluster",
                do=f"lower {what}, or use larger nodes",
            )


def has_room(bundles: Sequence[Bundle]) -> bool:
    """Return whether the connected cluster, were it empty, could hold all of these at the same time."""
    try:
        require_resources(bundles)
    except UserError:
        return False
    return True


def reject_relative_paths_in_job(outputs: Mapping[str, str | None]) -> None:
    """Refuse relative output paths inside a submitted job: they would be lost with its package directory.

    Args:
        outputs: config key -> path or URI that the job writes.

    Raises:
        UserError: in a submitted job, for the first path that is neither absolute nor a URI.
    """
    if not in_submitted_job():
        return
    for key, value in outputs.items():
        if value is not None and "://" not in value and not Path(value).is_absolute():
            raise UserError(
                what=key,
                got=f"the relative path '{value}' in a submitted job",
                expected="an absolute path or a URI (s3://, gs://)",
                do=f"add e.g. {key}=/mnt/data/{value} to the command; Ray deletes the job's own folder afterwards",
            )


def _join(address: str) -> None:
    try:
        with _own_sigterm():
            ray.init(address, logging_level=logging.WARNING)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise UserError(
            what="the Ray cluster",
            got=f"'{address}' refuses: {str(error).splitlines()[0]}",
            expected="a running cluster that accepts this machine's token",
            do="start it with `ray start --head`, set RAY_AUTH_MODE=token and copy its ~/.ray/auth_token here",
        ) from error


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the job's handler of SIGTERM over `ray.init`.

    Ray puts handlers of its own in its place, and that of its C++ part prints a stack trace and aborts (exit code 134),
    so that nothing is tidied up.
    """
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _require_reachable(address: str) -> None:
    if address == "auto":
        return  # ray.init looks the address up on this machine and fails at once
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise UserError(
            what="the Ray cluster",
            got=f"no answer at '{address}' ({error})",
            expected="the host:port of a running head (port 6379 by default)",
            do="start it with `ray start --head`, or unset RAY_ADDRESS and cluster.address to run here",
        ) from error


def _quieten_ray() -> None:
    """Leave out Ray's notes about defaults that this module sets on purpose."""
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)


def _require_at_least(name: str, value: int | None, least: int) -> None:
    require(
        value is None or value >= least,
        what=f"cluster.{name}",
        got=value,
        expected=f"at least {least}",
        do="raise it, or leave it out for the default",
    )


def _is_host_and_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and "/" not in host and port.isdigit() and 0 < int(port) < 65536


def _merged(bundles: Sequence[Bundle]) -> list[Bundle]:
    """Put equal bundles together: two that each fit on the nodes may not fit together."""
    counts: Counter[frozenset[tuple[str, float]]] = Counter()
    for bundle in bundles:
        counts[frozenset(bundle.each.items())] += bundle.num
    return [Bundle(dict(each), num) for each, num in counts.items()]


def _num_places(bundle: Mapping[str, float]) -> int:
    """Return how many of a bundle the nodes hold at once: those there now, or all that the autoscaler may start."""
    now = [(node["Resources"], 1) for node in ray.nodes() if node["Alive"]]
    config = ray_state.get_cluster_config()
    groups = [(dict(group.resources), group.max_count) for group in config.node_group_configs] if config else []
    return max(sum(_room(node, bundle) * count for node, count in nodes) for nodes in (now, groups))


def _room(node: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    rooms = [int(node.get(name, 0.0) / amount + 1e-6) for name, amount in bundle.items() if amount > 0]
    return min(rooms, default=_UNLIMITED)


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(resources.items()))
