"""A real Ray head with its dashboard and token authentication, as a user starts it, and jobs submitted to it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
START_TIMEOUT_S = 180
JOB_TIMEOUT_S = 900
COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""What the submitted jobs are told of the commit: their packed folder has no .git."""
OTHER_CLUSTER = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_CONFIG_JSON_ENV_VAR")


@dataclass(frozen=True)
class Head:
    """A running head: its dashboard, the environment of a user who may talk to it, and that user's token."""

    address: str
    environment: dict[str, str]
    token: str
    working_dir: Path

    def submit(self, name: str, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        """Run `ray job submit --working-dir . -- entrypoint` and wait for the job's end."""
        command = [BIN / "ray", "job", "submit", "--address", self.address, "--submission-id", name]
        runtime_env = json.dumps({"env_vars": {"HVLM_GIT_COMMIT": COMMIT}})
        return subprocess.run(
            [*command, "--working-dir", ".", "--runtime-env-json", runtime_env, "--", *entrypoint],
            cwd=self.working_dir,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=JOB_TIMEOUT_S,
        )

    def job(self, name: str) -> dict[str, Any]:
        """What the dashboard says about a job."""
        return dict(self.get(f"/api/jobs/{name}", self.token))

    def get(self, path: str, token: str | None) -> Any:
        """A GET of the dashboard, with or without a token."""
        request = urllib.request.Request(self.address + path)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)


@contextmanager
def running_head(working_dir: Path, num_cpus: int = 2) -> Iterator[Head]:
    """Start a head with the commands of the README and end it, with all its processes, afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray's socket paths may have 107 characters
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_CLUSTER}
    # CPU only, whatever the machine has: the smoke configs are made for two cores.
    environment |= {"HOME": str(folder), "RAY_AUTH_MODE": "token", "CUDA_VISIBLE_DEVICES": ""}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    token = subprocess.run(
        ["ray", "get-auth-token", "--generate"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout.split()[-1]
    port, dashboard, *others = free_ports(6)
    command = ["ray", "start", "--head", "--block", f"--port={port}", "--dashboard-host=127.0.0.1"]
    command += [f"--dashboard-port={dashboard}", f"--num-cpus={num_cpus}", "--num-gpus=0", "--disable-usage-stats"]
    command += ["--object-store-memory=200000000", f"--temp-dir={folder}/ray", f"--ray-client-server-port={others[0]}"]
    command += [f"--dashboard-agent-listen-port={others[1]}", f"--dashboard-agent-grpc-port={others[2]}"]
    command += [f"--metrics-export-port={others[3]}"]
    log = folder / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    head = Head(f"http://127.0.0.1:{dashboard}", environment, token, working_dir)
    try:
        wait_until_ready(head, process, log)
        yield head
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_ready(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the job server answers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            head.get("/api/jobs/", head.token)
            return
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the head did not start ({error}):\n{log.read_text()}") from error
            time.sleep(0.5)


def end(process: subprocess.Popen[bytes]) -> None:
    """End `ray start --block` and the processes it holds; `ray stop` would end every Ray of this machine."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
