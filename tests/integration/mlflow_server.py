"""A real `mlflow server` on SQLite, and its runs read over plain HTTP."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.ray_head import free_ports

START_TIMEOUT_S = 180


@dataclass(frozen=True)
class Server:
    """A running server."""

    uri: str

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Call the REST API."""
        request = urllib.request.Request(f"{self.uri}/api/2.0/mlflow/{path}", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def get(self, path: str) -> Any:
        """Call the REST API."""
        with urllib.request.urlopen(f"{self.uri}/api/2.0/mlflow/{path}", timeout=60) as response:
            return json.load(response)

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """All runs of an experiment."""
        found = self.get(f"experiments/get-by-name?experiment_name={experiment}")["experiment"]
        return list(self.post("runs/search", {"experiment_ids": [found["experiment_id"]]}).get("runs", []))

    def artifact(self, run_id: str, path: str) -> bytes:
        """The bytes of an artifact."""
        with urllib.request.urlopen(f"{self.uri}/get-artifact?run_id={run_id}&path={path}", timeout=60) as response:
            return bytes(response.read())


@contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    """Start a server that keeps everything under `folder`, and end it afterwards."""
    (port,) = free_ports(1)
    command = [str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port)]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    command += ["--workers", "1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", process, log)
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the server and its worker processes
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)


def wait_until_healthy(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until /health answers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=5) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"mlflow server did not start ({error}):\n{log.read_text()}") from error
        time.sleep(0.5)
