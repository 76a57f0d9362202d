"""How the store uses Delta Lake: where a table may lie, how one is made and read, and what its errors mean."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from hvlm.config import require
from hvlm.errors import UserError
from infra import storage

# Delta Lake's errors have no status, only words; what its own retries (ten, of the whole call) did not mend comes here.
_TRANSIENT = re.compile(
    r"\b(408|429|500|502|503|504)\b|slow ?down|throttl|timed? ?out|connection|error sending request|temporarily", re.I
)
# Delta Lake makes a URL of a local path and loses its way (%20), or ends the process, at these (deltalake 1.6).
_NO_TABLE = re.compile(r"[\[\]^|\\]|%[0-9A-Fa-f]{2}")


def check_place(store_uri: str) -> None:
    """Refuse a local folder in which Delta Lake cannot keep tables.

    Raises:
        UserError: its path has a character that Delta Lake cannot take.
    """
    found = _NO_TABLE.search(store_uri) if storage.is_local(store_uri) else None
    require(
        found is None,
        what="store_uri",
        got=f"{store_uri} with {found.group() if found else ''}",
        expected="a path without [ ] ^ | \\ and %20 and the like, which Delta Lake cannot take",
        do="rename the folder, or choose another one",
    )


def create_table(uri: str, schema: pa.Schema, configuration: dict[str, str]) -> None:
    """Create a table unless it is there; another job may do the same at this very moment."""
    try:
        DeltaTable.create(uri, schema=schema, mode="ignore", configuration=configuration)
    except CommitFailedError:
        if not DeltaTable.is_deltatable(uri):
            raise


def scan_table(table: DeltaTable) -> pl.LazyFrame:
    """Return the rows of a table at the version that it was opened at."""
    # polars 2.1 looks for the percent-encoded names of the files of a folder such as "my videos"; pyarrow decodes them.
    return pl.scan_delta(table, use_pyarrow="%" in table.table_uri)


@contextmanager
def clean_errors(uri: str) -> Iterator[None]:
    """A full disk or a missing permission inside Delta Lake becomes the same clean error as in `infra.storage`.

    What may pass becomes a ConnectionError, for `retries.retrying`.
    """
    try:
        yield
    except (OSError, DeltaError) as error:
        text = str(error)
        if "No space left" in text or "os error 28" in text:
            raise UserError(
                what=uri,
                got="no space left on the device",
                expected="room to write",
                do="free space, then run the same command again",
            ) from error
        if "Permission denied" in text or "os error 13" in text:
            raise UserError(
                what=uri,
                got="permission denied",
                expected="permission to write",
                do="change the permissions or the store's URI",
            ) from error
        if _TRANSIENT.search(text) and not isinstance(error, ConnectionError):
            raise ConnectionError(f"{uri}: {text}") from error
        raise
