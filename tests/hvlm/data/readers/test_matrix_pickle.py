import os
import pickle

import numpy as np
import pytest

from hvlm.data.readers.matrix_pickle import load_arrays
from hvlm.errors import UserError

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("matrix", [MATRIX, MATRIX.astype(np.int64), np.asfortranarray(MATRIX)], ids=["f4", "i8", "F"])
def test_arrays_of_every_protocol(matrix, protocol):
    found = load_arrays(pickle.dumps(matrix, protocol=protocol), "m.pkl")
    np.testing.assert_array_equal(found, matrix)
    assert found.dtype == matrix.dtype


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_plain_containers(protocol):
    content = {"a": [1, 2.5, None, "t", b"b"], "b": (True, {3}, frozenset([4])), "c": np.float64(0.5)}
    assert load_arrays(pickle.dumps(content, protocol=protocol), "m.pkl") == content


def test_an_array_that_an_older_numpy_wrote():
    old = pickle.dumps(MATRIX, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in old
    np.testing.assert_array_equal(load_arrays(old, "m.pkl"), MATRIX)


class Attack:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "content",
    [
        lambda: Attack(os.system, "touch pwned"),
        lambda: [MATRIX, Attack(eval, "open('pwned', 'w')")],
        lambda: np.array([Attack(exec, "open('pwned', 'w')")], dtype=object),
        lambda: Attack(getattr, "text", "upper"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_nothing_else_is_run(content, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(content(), protocol=protocol)
    with pytest.raises(UserError, match=r"^m\.pkl: got a pickle that cannot be read: it holds"):
        load_arrays(data, "m.pkl")
    assert list(tmp_path.iterdir()) == []
    assert (tmp_path / "pwned").exists() is False


def test_a_pandas_table_is_refused_by_name():
    # The official EPIC_100_retrieval_test.pkl is such a table.
    with pytest.raises(UserError, match=r"it holds pandas\.core\.frame\.DataFrame"):
        load_arrays(b"cpandas.core.frame\nDataFrame\n.", "m.pkl")


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(MATRIX)[:-20], b"\x80\x05.", b"cnumpy\n"])
def test_what_is_no_pickle_is_refused(data):
    with pytest.raises(UserError, match=r"^m\.pkl"):
        load_arrays(data, "m.pkl")
