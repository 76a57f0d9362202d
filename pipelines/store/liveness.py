"""Which sample rows count, at any version of the append-only `samples` table.

A video's *home* is its highest generation. Its live samples are the rows of that generation, unless it was tombstoned
in a later commit. Rows of older generations are dead (the video changed, or was republished or compacted), but their
bytes are stored until `jobs.compact` drops the generation, so they still serve as a source of features that need no
decoding. A `damaged` row (of `jobs.verify repair=true`) ends that for one sample: it is a copy of the sample's row with
this state.
"""

import polars as pl

SAMPLE = ["gen", "video_id", "encoder", "fingerprint"]
"""The columns that name a sample."""


def live_samples(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that count: for each video those of its home generation, all encoders and fingerprints."""
    homes = home_generations(samples).lazy()
    rows = samples.lazy().filter(pl.col("state") == "live")
    return rows.join(homes, on=["video_id", "gen"], how="semi", maintain_order="left").collect()


def home_generations(samples: pl.DataFrame) -> pl.DataFrame:
    """Return video_id, gen of the videos that have live samples."""
    rows = samples.lazy().filter(pl.col("state") == "live")
    home = rows.group_by("video_id").agg(pl.col("gen").max(), pl.col("commit").max().alias("last"))
    gone = samples.lazy().filter(pl.col("state") == "tombstone")
    gone = gone.group_by("video_id").agg(pl.col("commit").max().alias("gone"))
    home = home.join(gone, on="video_id", how="left").filter(
        pl.col("gone").is_null() | (pl.col("last") > pl.col("gone"))
    )
    return home.select("video_id", "gen").collect()


def is_stored(samples: pl.DataFrame) -> pl.Expr:
    """Return the condition on rows of `samples`: a sample, live or dead, whose generation is not dropped."""
    dropped = samples.filter(pl.col("state") == "dropped")["gen"]
    return (pl.col("state") == "live") & ~pl.col("gen").is_in(dropped.implode())


def is_source(samples: pl.DataFrame) -> pl.Expr:
    """Return the condition on rows of `samples`: a stored sample whose features may be copied into another one."""
    damaged = samples.filter(pl.col("state") == "damaged")
    if damaged.is_empty():
        return is_stored(samples)
    return is_stored(samples) & ~pl.struct(SAMPLE).is_in(damaged.select(pl.struct(SAMPLE)).to_series().implode())


def superseded_samples(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the live samples whose video has a live sample of the encoder's newest fingerprint too.

    They stay live: a reader may ask for an older fingerprint (an evaluation of a model that was trained on it does).
    """
    newest = [(name, last_fingerprint(samples, name)) for name in samples["encoder"].unique()]
    frame = pl.DataFrame(newest, schema={"encoder": pl.String, "newest": pl.String}, orient="row")
    live = live_samples(samples).join(frame, on="encoder")
    has_newest = live.filter(pl.col("fingerprint") == pl.col("newest")).select("video_id", "encoder")
    older = live.filter(pl.col("fingerprint") != pl.col("newest")).drop("newest")
    return older.join(has_newest, on=["video_id", "encoder"], how="semi")


def selected_encoders(samples: pl.DataFrame) -> dict[str, str]:
    """Return `{encoder: fingerprint}` of the newest publish's configuration: what a reader gets by default."""
    rows = samples.filter(pl.col("state") == "selected")
    newest = rows.filter(pl.col("commit") == pl.col("commit").max()).sort("encoder")
    return dict(zip(newest["encoder"], newest["fingerprint"], strict=True))


def last_fingerprint(samples: pl.DataFrame, encoder: str) -> str | None:
    """Return the fingerprint that an encoder name was last published with, or None."""
    rows = samples.filter((pl.col("state") == "selected") & (pl.col("encoder") == encoder)).sort("commit")
    return None if rows.is_empty() else str(rows["fingerprint"][-1])
