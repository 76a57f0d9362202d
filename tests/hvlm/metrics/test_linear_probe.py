"""The probe: parity with scikit-learn, learning on planted classes, chance with shuffled labels, choice of lambda."""

import numpy as np
import pytest
import torch

from hvlm.errors import UserError
from hvlm.metrics.linear_probe import LinearProbe, ProbeConfig, choose_probe, fit_linear_probe

torch.set_num_threads(1)


def _planted(seed: int, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(3, size=count)
    centres = np.random.default_rng(99).normal(size=(3, 8))
    return centres[labels] + 0.5 * random.normal(size=(count, 8)), labels


@pytest.mark.parametrize("kind", ["multinomial", "one_vs_rest"])
def test_parity_with_scikit_learn(kind):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = _planted(0)
    l2 = 0.05
    targets = labels if kind == "multinomial" else np.eye(3, dtype=bool)[labels]
    probe = fit_linear_probe(features, targets, num_classes=3, l2=l2, kind=kind)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    strength = 1 / (l2 * len(features))
    if kind == "multinomial":
        reference = linear_model.LogisticRegression(C=strength, tol=1e-10, max_iter=5000).fit(standard, labels)
        np.testing.assert_allclose(probe.weight_CD, reference.coef_, atol=1e-4)
        np.testing.assert_allclose(probe.probabilities(features), reference.predict_proba(standard), atol=1e-4)
    else:
        for c in range(3):
            one = linear_model.LogisticRegression(C=strength, tol=1e-10, max_iter=5000).fit(standard, labels == c)
            np.testing.assert_allclose(probe.weight_CD[c], one.coef_[0], atol=1e-4)


def test_learns_planted_classes_and_not_shuffled_labels():
    features, labels = _planted(0)
    test_features, test_labels = _planted(1, 1000)
    probe = fit_linear_probe(features, labels, num_classes=3, l2=0.01, kind="multinomial")
    assert (probe.logits(test_features).argmax(axis=1) == test_labels).mean() > 0.9
    shuffled = np.random.default_rng(0).permutation(labels)
    wrong = fit_linear_probe(features, shuffled, num_classes=3, l2=0.01, kind="multinomial")
    assert (wrong.logits(test_features).argmax(axis=1) == test_labels).mean() < 0.65


def test_fit_is_deterministic_and_ignores_a_constant_channel():
    features, labels = _planted(0)
    features[:, 2] = 7.0
    first, second = (fit_linear_probe(features, labels, num_classes=3, l2=0.1, kind="multinomial") for _ in range(2))
    np.testing.assert_array_equal(first.weight_CD, second.weight_CD)
    np.testing.assert_array_equal(first.weight_CD[:, 2], 0.0)


def test_other_width_and_no_rows_are_refused():
    features, labels = _planted(0)
    probe = fit_linear_probe(features, labels, num_classes=3, l2=0.1, kind="multinomial")
    with pytest.raises(ValueError, match="width 8"):
        probe.logits(features[:, :5])
    with pytest.raises(ValueError, match="needs rows"):
        fit_linear_probe(features[:0], labels[:0], num_classes=3, l2=0.1, kind="multinomial")
    with pytest.raises(ValueError, match="one_vs_rest"):
        fit_linear_probe(features, labels, num_classes=3, l2=0.1, kind="one_vs_rest")


def test_choice_takes_the_best_dev_score_and_the_stronger_penalty_on_a_tie():
    def fit(l2: float) -> LinearProbe:
        zero = np.zeros(1)
        return LinearProbe(zero, zero, zero[None], zero, "multinomial", l2)

    scores = {0.1: 0.7, 1.0: 0.7, 10.0: float("nan"), 0.01: 0.2}
    best, tried = choose_probe(fit, lambda probe: scores[probe.l2], list(scores))
    assert best.l2 == 1.0
    assert set(tried) == set(scores)


def test_config_refuses_a_bad_grid():
    with pytest.raises(UserError, match="l2_grid"):
        ProbeConfig(l2_grid=(0.0,))
    with pytest.raises(UserError, match="max_iterations"):
        ProbeConfig(max_iterations=0)
