"""Keeps the catalog's tables fast however many commits they have seen; the job that writes calls it now and then.

A commit adds a small file to its table. Delta Lake itself writes a checkpoint of the log every 100 commits and, with
it, deletes the log entries that are older than the table's retention. Left to do: merge the small files, and delete
what `staged` no longer refers to. The files that a merge replaces stay in the append-only tables: a pinned version of
`samples` reads them for as long as its log is kept (ten years).
"""

import logging

from deltalake import DeltaTable

from pipelines.store.catalog import FeatureStore
from pipelines.store.schema import APPEND_ONLY, TABLES
from pipelines.store.tables import clean_errors

logger = logging.getLogger(__name__)
# A reader opens every file of a table: 100 cost a second on an object store, one big file a tenth of it.
MAX_FILES = 100
# Longer than any reader of a table without history takes.
_KEEP_HOURS = 24


def tidy_tables(store: FeatureStore) -> None:
    """Merge the files of each table that has more than MAX_FILES; delete files that only old versions of `staged` need.

    What a table holds, the order of its rows and its older versions stay as they are; a merge is a version of its own.

    Raises:
        LeaseLost: the lease is not ours any more.
    """
    for name in TABLES:
        store.check_lease()
        uri = store.table_uri(name)
        with clean_errors(uri):
            table = DeltaTable(uri)
            if len(table.file_uris()) > MAX_FILES:
                merged = table.optimize.compact()
                logger.info("merged %s small files of the table %s", merged["numFilesRemoved"], name)
            if name not in APPEND_ONLY:
                store.check_lease()  # a merge may take longer than a lease lasts
                table.vacuum(retention_hours=_KEEP_HOURS, dry_run=False, enforce_retention_duration=False, full=True)
