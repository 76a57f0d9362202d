import os
import subprocess
import sys
import time

import psutil

from pipelines.chaos.cluster import TwoNodes, family_of

COUNT = "import ray; ray.init('{address}', logging_level='ERROR'); print('alive', sum(n['Alive'] for n in ray.nodes()))"


def num_alive(address: str) -> int:
    """Ask from a process of its own: this one may be connected to another Ray."""
    command = [sys.executable, "-c", COUNT.format(address=address)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("alive "))


def test_the_second_node_can_be_killed_and_comes_back() -> None:
    with TwoNodes() as nodes:
        raylets = [member.pid for member in nodes.family() if "raylet/raylet" in " ".join(member.cmdline())]
        assert len(raylets) == 2 and num_alive(nodes.address) == 2
        nodes.kill()
        assert sum(psutil.pid_exists(pid) for pid in raylets) == 1
        until = time.monotonic() + 30
        while num_alive(nodes.address) == 2 and time.monotonic() < until:
            time.sleep(0.5)
        assert num_alive(nodes.address) == 1
        nodes.mend()
        nodes.mend()
        assert num_alive(nodes.address) == 2
    assert not any(psutil.pid_exists(pid) for pid in raylets)


def test_a_family_is_a_process_and_all_below_it() -> None:
    code = "import subprocess, time; p = subprocess.Popen(['sleep', '60']); print('up', flush=True); p.wait()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None and parent.stdout.readline() == b"up\n"
    family = family_of(parent.pid)
    assert family[0].pid == parent.pid and len(family) == 2
    for member in family:
        member.kill()
    parent.wait()
    assert family_of(parent.pid) == [] and family_of(os.getpid())[0].pid == os.getpid()
