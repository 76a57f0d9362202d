"""Threads for the encoder: what other processes leave."""

from collections import namedtuple
from types import SimpleNamespace

import pytest

from pipelines.extraction import spare_cpus
from pipelines.extraction.spare_cpus import SpareCpus

Times = namedtuple("Times", ["user", "system", "idle", "iowait", "steal", "guest", "guest_nice"])


class Machine:
    """Six CPUs, of which this process may use four; `run` lets time pass, on those four in equal parts."""

    cpus = frozenset({0, 2, 3, 4})

    def __init__(self) -> None:
        self.wall_s, self.own_s, self.times = 100.0, 3.0, Times(50.0, 5.0, 300.0, 2.0, 0.0, 10.0, 0.0)

    def run(self, wall_s: float, own: float, user: float = 0.0, iowait: float = 0.0, steal: float = 0.0) -> None:
        """Let `own`, `user` and the others have so many CPUs for `wall_s` seconds."""
        self.wall_s += wall_s
        self.own_s += own * wall_s
        idle = 4.0 - own - user - iowait - steal
        passed = Times((own + user) * wall_s, 0.0, idle * wall_s, iowait * wall_s, steal * wall_s, user * wall_s, 0.0)
        self.times = Times(*(a + b / 4 for a, b in zip(self.times, passed, strict=True)))

    def cpu_times(self, percpu: bool) -> list[Times]:
        assert percpu
        elsewhere = Times(self.wall_s, *[0.0] * 6)  # always busy
        return [self.times if cpu in self.cpus else elsewhere for cpu in range(6)]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(spare_cpus, "os", SimpleNamespace(sched_getaffinity=lambda pid: machine.cpus))
    clock = SimpleNamespace(monotonic=lambda: machine.wall_s, process_time=lambda: machine.own_s)
    monkeypatch.setattr(spare_cpus, "time", clock)
    monkeypatch.setattr(spare_cpus, "psutil", SimpleNamespace(cpu_times=machine.cpu_times))
    return machine


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        (0.5, {"user": 3.4}, 1),  # the decoders have every core
        (0.1, {"user": 3.9}, 1),
        (1.0, {"user": 1.2}, 3),
        (3.8, {"user": 0.2}, 4),  # what we use ourselves is ours
        (1.0, {"iowait": 3.0}, 4),  # waiting for a disk needs no core
        (1.0, {"steal": 3.0}, 1),  # what the host gives to others is not to be had
        (0.0, {}, 4),
    ],
)
def test_threads_are_as_many_as_others_leave(
    machine: Machine, own: float, others: dict[str, float], expected: int
) -> None:
    spare = SpareCpus()
    machine.run(2.0, own, **others)
    assert spare.num_threads() == expected


def test_each_answer_is_of_the_time_since_the_last_one(machine: Machine) -> None:
    spare = SpareCpus()
    assert spare.num_threads() == 1  # nothing is known yet
    machine.run(60.0, own=0.1, user=3.9)
    assert spare.num_threads() == 1
    machine.run(1.0, own=1.0)
    assert spare.num_threads() == 4
    machine.run(0.2, own=0.1, user=3.9)
    assert spare.num_threads() == 4  # too short to be counted
    machine.run(0.4, own=0.1, user=3.9)
    assert spare.num_threads() == 1


def test_this_machine_answers() -> None:
    spare = SpareCpus()
    spare._before = (spare._before[0] - 1.0, spare._before[1])
    assert spare.num_threads() >= 1
