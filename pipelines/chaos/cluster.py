"""A local Ray cluster of two nodes, whose second node can be killed and comes back: what `chaos` runs jobs on."""

from contextlib import suppress
from types import TracebackType

import psutil
from ray.cluster_utils import Cluster

from infra.cluster import ensure_token

_OBJECT_STORE_BYTES = 150_000_000


class TwoNodes:
    """The head and one more node, a CPU each, on this machine; in a `with` block."""

    def __enter__(self) -> "TwoNodes":
        ensure_token()
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": _OBJECT_STORE_BYTES}
        )
        self.mend()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        """host:port of the head."""
        return str(self._cluster.address)

    def kill(self) -> None:
        """Kill the second node: its raylet by SIGKILL, and with it all its workers."""
        self._cluster.remove_node(self._second, allow_graceful=False)

    def mend(self) -> None:
        """Start a second node where there is none."""
        if not self._cluster.worker_nodes:
            self._second = self._cluster.add_node(num_cpus=1, object_store_memory=_OBJECT_STORE_BYTES)

    def family(self) -> list[psutil.Process]:
        """Return the processes of both nodes."""
        nodes = (self._cluster.head_node, self._second)
        pids = (info.process.pid for node in nodes for infos in node.all_processes.values() for info in infos)
        return [member for pid in pids for member in family_of(pid)]


def family_of(pid: int) -> list[psutil.Process]:
    """Return a process, first, and all below it; none if it is gone."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []
