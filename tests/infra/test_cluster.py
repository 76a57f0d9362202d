"""Joining and embedding Ray; configurations that no cluster can hold are refused at once."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from ray.core.generated.autoscaler_pb2 import ClusterConfig as ClusterConfigOfRay

from hvlm.errors import UserError
from infra import cluster
from infra.cluster import (
    Bundle,
    ClusterConfig,
    available_cpus,
    cluster_address,
    connect,
    has_room,
    in_submitted_job,
    reject_relative_paths_in_job,
    require_resources,
    total_resources,
)


@pytest.fixture(autouse=True)
def _outside_any_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)


@pytest.mark.parametrize("address", [None, "auto", "local", "head:6379", "10.0.0.1:6379", "[::1]:6379"])
def test_good_addresses(address):
    assert ClusterConfig(address=address).address == address


@pytest.mark.parametrize(
    "address", ["", "head", "head:", ":6379", "head:70000", "head:0", "http://head:8265", "ray://head:10001"]
)
def test_bad_addresses_are_refused(address):
    with pytest.raises(UserError, match=r"cluster\.address: got "):
        ClusterConfig(address=address)


@pytest.mark.parametrize("address", ["local", "head:6379"])
def test_the_jobs_own_handler_of_sigterm_stays(monkeypatch, address):
    """ray.init replaces it."""
    before = signal.getsignal(signal.SIGTERM)
    handlers = []

    def init(*where, **settings):
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    for name, stand_in in (("is_initialized", lambda: False), ("init", init), ("shutdown", lambda: None)):
        monkeypatch.setattr(cluster.ray, name, stand_in)
    monkeypatch.setattr(cluster, "_require_reachable", lambda address: None)
    try:
        signal.signal(signal.SIGTERM, lambda number, frame: handlers.append(number))
        with connect(ClusterConfig(address=address)):
            os.kill(os.getpid(), signal.SIGTERM)
        assert handlers == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("wrong", [{"num_cpus": 0}, {"num_gpus": -1}, {"object_store_memory_bytes": 1000}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=f"cluster.{next(iter(wrong))}"):
        ClusterConfig(**wrong)


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [
        (None, None, None),
        (None, "head:6379", "head:6379"),
        ("local", "head:6379", None),
        ("other:6379", "head:6379", "other:6379"),
        ("auto", "head:6379", "head:6379"),
        ("auto", None, "auto"),
    ],
)
def test_which_cluster_is_joined(monkeypatch, configured, environment, expected):
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    assert cluster_address(ClusterConfig(address=configured)) == expected


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://head:10001"])
def test_the_dashboards_url_in_ray_address_is_explained(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match="ray job submit"):
        cluster_address(ClusterConfig())


def test_a_cluster_that_does_not_answer_is_an_error_within_seconds():
    """Without the check, ray.init waits for more than ten minutes. Run apart: this process may have a Ray already."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"""
from infra.cluster import ClusterConfig, connect
from jobs.entry import guarded
raise SystemExit(guarded(lambda: connect(ClusterConfig(address="127.0.0.1:{port}")).__enter__()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert f"no answer at '127.0.0.1:{port}'" in done.stderr


def test_a_silent_host_is_given_up(monkeypatch):
    def silent(address, timeout):
        raise TimeoutError(f"timed out after {timeout}")

    monkeypatch.setattr(socket, "create_connection", silent)
    with pytest.raises(UserError, match=r"no answer at 'head:6379' \(timed out after 5\.0\)"):
        cluster._require_reachable("head:6379")


def test_the_embedded_ray_has_the_configured_cpus_and_lives_on_inside(ray_cluster):
    import ray

    assert total_resources()["CPU"] == 2
    with connect(ClusterConfig(num_cpus=7)):
        assert total_resources()["CPU"] == 2, "a connected process keeps its connection"
    assert ray.is_initialized(), "the inner block must not end the outer one's Ray"


def test_needs_that_fit_pass(ray_cluster):
    require_resources([Bundle({"CPU": 2, "GPU": 0})])
    require_resources([Bundle({"CPU": 1}, 2), Bundle({"CPU": 0, "GPU": 0}, 100)])


def test_needs_that_never_fit_are_refused_at_once(ray_cluster):
    start = time.monotonic()
    with pytest.raises(UserError) as refusal:
        require_resources([Bundle({"CPU": 1}), Bundle({"CPU": 1, "GPU": 0.5}, 2)], what="resources.num_workers")
    assert time.monotonic() - start < 30
    assert str(refusal.value) == (
        "resources.num_workers: got a need of 3 CPU, 1 GPU; expected at most what the Ray cluster has: 2 CPU, 0 GPU; "
        "lower resources.num_workers, or use a cluster with more CPU and GPU"
    )


def _autoscaling(monkeypatch, *groups):
    config = ClusterConfigOfRay()
    for count, resources in groups:
        config.node_group_configs.add(name=f"n{count}", max_count=count, resources=resources)
    monkeypatch.setattr(cluster.ray_state, "get_cluster_config", lambda: config)


def test_what_an_autoscaler_may_start_counts(ray_cluster, monkeypatch):
    _autoscaling(monkeypatch, (8, {"CPU": 8, "GPU": 1}))
    require_resources([Bundle({"CPU": 8, "GPU": 1}, 8)])
    with pytest.raises(UserError, match="a need of 9 GPU"):
        require_resources([Bundle({"CPU": 1, "GPU": 1}, 9)])


def test_a_need_that_no_single_node_holds_is_refused(ray_cluster, monkeypatch):
    """Two nodes of 2 CPUs have 4, but never a place for 3: Ray would wait for ever."""
    _autoscaling(monkeypatch, (2, {"CPU": 2}), (1, {"CPU": 4}))
    require_resources([Bundle({"CPU": 3})])
    with pytest.raises(UserError, match=re.escape("got a need of 2 × (3 CPU), each on one node; expected at most 1")):
        require_resources([Bundle({"CPU": 3}, 2)], what="resources.num_workers")


def test_equal_needs_are_counted_together(ray_cluster, monkeypatch):
    """Each of three times 2 CPUs has room on two nodes of 3, all three have not."""
    _autoscaling(monkeypatch, (2, {"CPU": 3}))
    each = Bundle({"CPU": 2})
    assert has_room([each, each]) and not has_room([each, each, each])
    assert not has_room([Bundle({"CPU": 4})])


@pytest.mark.parametrize(("text", "most"), [("max 100000\n", None), ("50000 100000\n", 1), ("100000 100000\n", 1)])
def test_the_containers_quota_cuts_the_cpus(tmp_path, text, most):
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert available_cpus(quota) == (most or len(os.sched_getaffinity(0)))


def test_without_a_quota_the_affinity_counts(tmp_path):
    assert available_cpus(tmp_path / "none") == len(os.sched_getaffinity(0))


def test_relative_outputs_are_fine_outside_a_job():
    assert not in_submitted_job()
    reject_relative_paths_in_job({"store_uri": "runs/store"})


def test_relative_outputs_are_refused_in_a_job(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    reject_relative_paths_in_job({"store_uri": "/data/store", "output_uri": "s3://bucket/x", "report_path": None})
    with pytest.raises(
        UserError, match=r"store_uri: got the relative path 'runs/store' in a submitted job; expected an abs"
    ):
        reject_relative_paths_in_job({"output_uri": "/data/out", "store_uri": "runs/store"})


def test_an_embedded_ray_needs_no_token_file(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    cluster.ensure_token()
    first = os.environ["RAY_AUTH_TOKEN"]
    cluster.ensure_token()
    assert len(first) == 64
    assert os.environ["RAY_AUTH_TOKEN"] == first
    assert list(tmp_path.iterdir()) == []


def test_the_users_token_file_wins(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("mine")
    cluster.ensure_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
