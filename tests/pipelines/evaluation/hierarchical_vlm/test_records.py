"""Even sampling of rows."""

import numpy as np
import pytest

from pipelines.evaluation.hierarchical_vlm.records import even_sample


@pytest.mark.parametrize(
    ("count", "limit", "expected"), [(3, 5, [0, 1, 2]), (5, 3, [0, 2, 4]), (10, 2, [0, 9]), (1, 1, [0])]
)
def test_sample_is_even_and_keeps_the_ends(count, limit, expected):
    assert even_sample(count, limit).tolist() == expected


def test_sample_never_exceeds_its_limit():
    for count in range(1, 60):
        for limit in (1, 2, 7, 59):
            rows = even_sample(count, limit)
            assert len(rows) <= limit
            assert (np.diff(rows) > 0).all()
