from pipelines.store import schema
from pipelines.store.sources import LISTING_SCHEMA
from pipelines.store.staging import StagingItem


def test_tables_share_the_types_of_shared_columns():
    for one in schema.TABLES.values():
        for other in [*schema.TABLES.values(), LISTING_SCHEMA]:
            assert all(one[name] == other[name] for name in one.keys() & other.keys())


def test_staged_rows_are_staging_items_and_their_place():
    fields = set(StagingItem.__dataclass_fields__) - {"features", "times_s"}
    assert set(schema.STAGED) == fields | {"run_id", "dim", "tar", "offset", "size", "sha256"}


def test_only_staged_is_rewritten():
    assert set(schema.TABLES) - set(schema.APPEND_ONLY) == {"staged"}
