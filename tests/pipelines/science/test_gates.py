import pytest

from pipelines.science import gates
from pipelines.science.gates import Gate, mean_and_std
from tests.pipelines.science.made_runs import CHANCE

GOOD = {
    "sa": {"easy": [0.85, 0.87], "order": [0.88, 0.9], "shuffle": [0.5, 0.52], "shuffle_wrong": [0.26, 0.24],
           "clip40": [0.64, 0.66]},
    "avg": {"order": [0.49, 0.55], "shuffle": [0.2, 0.2 + 1e-12]},
    "child_only": {"easy": [0.25, 0.13], "clip40": [0.65, 0.67]},
    "no_positions": {"order": [0.45, 0.53]},
    "wo_joint": {"clip40": [0.36, 0.38]},
    "permuted": {"easy": [0.18, 0.21], "order": [0.49, 0.52], "shuffle": [0.21, 0.18]},
}  # fmt: skip
STEPS = {"loss": [3.0, 2.0], "norm": [1.0, 0.5]}


def values(method=None, metric=None, instead=None):
    made = {name: dict(metrics) for name, metrics in GOOD.items()}
    if method:
        made[method][metric] = instead
    return made


def judge(found, workers):
    return gates.judge(found, workers, CHANCE)


def failing(found: list[Gate]) -> list[str]:
    return [gate.name for gate in found if not gate.holds]


def test_all_gates_of_the_specification_are_judged_and_hold():
    found = judge(GOOD, {"one_worker": STEPS, "two_workers": STEPS})
    assert len(found) == 13 and failing(found) == []
    assert found[0].measured == "0.860 ± 0.014 (n=2)" and found[0].required == "≥ 0.80"


@pytest.mark.parametrize(
    ("method", "metric", "instead", "gate"),
    [
        ("sa", "easy", [0.79, 0.80], "SA names the phases"),
        ("sa", "order", [0.70, 0.89], "SA knows the order"),
        ("sa", "shuffle_wrong", [0.36, 0.38], "SA's order fits its text"),
        ("sa", "clip40", [0.62, 0.63], "SA keeps the clips"),
        ("avg", "order", [0.57, 0.57], "Avg knows no order: order"),
        ("avg", "order", [0.43, 0.43], "Avg knows no order: order"),
        ("avg", "shuffle", [0.2, 0.201], "Avg knows no order: shuffle"),
        ("child_only", "easy", [0.3, 0.3], "child-only knows no summary"),
        ("no_positions", "order", [0.57, 0.57], "SA without positions"),
        ("wo_joint", "clip40", [0.52, 0.54], "without joint training"),
        ("permuted", "easy", [0.1, 0.5], "permuted summaries teach nothing: easy"),  # scattered, not chance
        ("permuted", "easy", [0.25, 0.251], "permuted summaries teach nothing: easy"),
        ("permuted", "order", [0.45, 0.451], "permuted summaries teach nothing: order"),
        ("permuted", "shuffle", [0.17, 0.171], "permuted summaries teach nothing: shuffle"),
    ],
)
def test_each_gate_fails_on_its_own(method, metric, instead, gate):
    (failed,) = failing(judge(values(method, metric, instead), {"one_worker": STEPS, "two_workers": STEPS}))
    assert failed.startswith(gate)


@pytest.mark.parametrize(
    "two",
    [
        STEPS | {"norm": [1.0, 0.25]},
        STEPS | {"norm": [1.0]},
        {"loss": STEPS["loss"]},
        {"loss": [], "norm": []},
    ],
)
def test_workers_that_take_other_steps_fail(two):
    (failed,) = failing(judge(GOOD, {"one_worker": STEPS, "two_workers": two}))
    assert failed.startswith("1 and 2 workers")


def test_float_noise_between_workers_is_no_failure():
    two = {name: [value * (1 + 1e-5) for value in each] for name, each in STEPS.items()}
    assert failing(judge(GOOD, {"one_worker": STEPS, "two_workers": two})) == []


def test_the_interval_is_students_t_over_three_metrics():
    """n = 5, t(1 - 0.05 / 6, 4) = 3.961 (tables give 3.747 at 0.99 and 4.604 at 0.995)."""
    five = [0.48, 0.49, 0.50, 0.51, 0.52]
    (gate,) = [each for each in judge(values("permuted", "order", five), {"one_worker": STEPS, "two_workers": STEPS})
               if each.name.endswith("nothing: order")]  # fmt: skip
    half = 3.961 * 0.0158114 / 5**0.5
    assert gate.measured == f"0.500 ± 0.016 (n=5), {0.5 - half:.3f} to {0.5 + half:.3f}"


def test_one_value_has_no_deviation():
    assert mean_and_std([0.5]) == "0.500 (n=1)"
