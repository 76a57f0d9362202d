import numpy as np
import pytest

from hvlm.metrics.embedding_map import tsne


def test_clusters_stay_together_and_the_map_repeats() -> None:
    random = np.random.default_rng(0)
    rows = np.repeat(np.eye(2, 5), 10, axis=0) + 0.01 * random.normal(size=(20, 5))
    points = tsne(rows, seed=0)
    np.testing.assert_array_equal(points, tsne(rows, seed=0))
    centres = points.reshape(2, 10, 2).mean(1)
    spread = points.reshape(2, 10, 2).std(1).max()
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * spread


def test_too_few_rows() -> None:
    with pytest.raises(ValueError, match="4 rows or more"):
        tsne(np.eye(3), seed=0)
