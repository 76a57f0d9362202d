"""Which sample rows count, at any version of the append-only `samples` table.

A video's *home* is its highest generation. Its live samples are the rows of that generation, unless it was tombstoned
in a later commit. Rows of older generations are dead (the video changed or was republished), but their bytes stay until
a compaction, so they still serve as a source of features that need no decoding.
"""

import polars as pl


def live_samples(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that count: for each video those of its home generation, all encoders and fingerprints."""
    rows = samples.filter(pl.col("state") == "live")
    home = rows.group_by("video_id").agg(pl.col("gen").max(), pl.col("commit").max().alias("last"))
    gone = samples.filter(pl.col("state") == "tombstone").group_by("video_id").agg(pl.col("commit").max().alias("gone"))
    home = home.join(gone, on="video_id", how="left").filter(
        pl.col("gone").is_null() | (pl.col("last") > pl.col("gone"))
    )
    return rows.join(home.select("video_id", "gen"), on=["video_id", "gen"], how="semi")


def selected_encoders(samples: pl.DataFrame) -> dict[str, str]:
    """Return `{encoder: fingerprint}` of the newest publish's configuration: what a reader gets by default."""
    rows = samples.filter(pl.col("state") == "selected")
    newest = rows.filter(pl.col("commit") == pl.col("commit").max()).sort("encoder")
    return dict(zip(newest["encoder"], newest["fingerprint"], strict=True))


def last_fingerprint(samples: pl.DataFrame, encoder: str) -> str | None:
    """Return the fingerprint that an encoder name was last published with, or None."""
    rows = samples.filter((pl.col("state") == "selected") & (pl.col("encoder") == encoder)).sort("commit")
    return None if rows.is_empty() else str(rows["fingerprint"][-1])
