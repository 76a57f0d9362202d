"""A pickled array, read without running what else a pickle may hold.

A pickle is a program: loading one from a stranger may delete files. Here only what numpy itself writes for an array of
numbers is called; lists, tuples, dicts and sets need no call.
"""

import io
import pickle  # a restricted Unpickler, never pickle.load
from typing import Any

import numpy as np
from numpy._core import multiarray, numeric

from hvlm.errors import UserError


def _latin1(text: str, encoding: str) -> bytes:
    """What `_codecs.encode` does in a pickle of protocol 2; other codecs may unpack a bomb."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set,  # Protocols below 3 use Python 2's name.
    ("__builtin__", "frozenset"): frozenset,
}
for _package in ("numpy.core", "numpy._core"):  # numpy 1 wrote the first name, numpy 2 writes the second.
    _ADMITTED[f"{_package}.multiarray", "_reconstruct"] = multiarray._reconstruct
    _ADMITTED[f"{_package}.multiarray", "scalar"] = multiarray.scalar
    _ADMITTED[f"{_package}.numeric", "_frombuffer"] = numeric._frombuffer  # type: ignore[attr-defined]


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it holds {module}.{name}") from None


def load_arrays(data: bytes, origin: str) -> Any:
    """Return what a pickle of numpy arrays, numbers, texts, lists, tuples, dicts and sets holds.

    Args:
        data: the whole file.
        origin: names it in errors.

    Raises:
        UserError: it holds anything else, a pandas table for example, or is no pickle. Nothing of it was run.
    """
    try:
        return _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        MemoryError,
        OverflowError,
    ) as error:
        raise UserError(
            what=origin,
            got=f"a pickle that cannot be read: {error or type(error).__name__}",
            expected="a pickle of numpy arrays and plain containers",
            do="save the matrix again with pickle.dump(numpy.asarray(matrix), file)",
        ) from error
