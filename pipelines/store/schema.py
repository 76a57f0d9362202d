"""The explicit schema of every catalog table. A column that changes meaning raises SCHEMA_VERSION.

A column that an older table lacks reads as null there, and the first row that is appended adds it.
"""

import polars as pl

SCHEMA_VERSION = 1

# One row per change of a video (append-only); the row with the highest `snapshot` is the current one.
VIDEOS: dict[str, pl.DataType] = {
    "snapshot": pl.Int64(),
    "video_id": pl.String(),
    "key": pl.String(),
    "uri": pl.String(),
    "size_bytes": pl.Int64(),
    "stamp": pl.String(),  # mtime or etag: with size_bytes and uri it says whether the file must be read again
    "hash_kind": pl.String(),  # "sampled" or "full"
    "content_hash": pl.String(),
    "duration_s": pl.Float64(),  # null where the probe failed
    "fps": pl.Float64(),
    "codec": pl.String(),
    "num_frames": pl.Int64(),
    "width": pl.Int64(),
    "height": pl.Int64(),
    "num_streams": pl.Int64(),
    "subset": pl.String(),
    "split": pl.String(),  # set when the list names the split itself
    "metadata_json": pl.String(),
    "metadata_hash": pl.String(),
    "state": pl.String(),  # live | tombstone
}

# One row per staged (video, encoder, segment).
STAGED: dict[str, pl.DataType] = {
    "run_id": pl.String(),
    "video_id": pl.String(),
    "key": pl.String(),
    "content_hash": pl.String(),
    "encoder": pl.String(),
    "fingerprint": pl.String(),
    "layout": pl.String(),
    "segment_index": pl.Int64(),
    "num_segments": pl.Int64(),
    "row_start": pl.Int64(),
    "num_rows": pl.Int64(),
    "dim": pl.Int64(),
    "duration_s": pl.Float64(),
    "fps": pl.Float64(),
    "stride_s": pl.Float64(),
    "clip_s": pl.Float64(),
    "offset_s": pl.Float64(),
    "tar": pl.String(),
    "offset": pl.Int64(),
    "size": pl.Int64(),
    "sha256": pl.String(),  # of this range of the tar; null in rows of stores that did not say it
}

# One row per published (video, encoder, generation), append-only. `commit` counts the publishes.
SAMPLES: dict[str, pl.DataType] = {
    "commit": pl.Int64(),
    "gen": pl.Int64(),
    "encoder": pl.String(),
    "fingerprint": pl.String(),
    "split": pl.String(),
    "shard": pl.String(),
    "shard_sha256": pl.String(),
    "shard_bytes": pl.Int64(),
    "key": pl.String(),
    "video_id": pl.String(),
    "content_hash": pl.String(),
    "metadata_hash": pl.String(),
    "num_rows": pl.Int64(),
    "dim": pl.Int64(),
    "duration_s": pl.Float64(),
    "offset": pl.Int64(),
    "size": pl.Int64(),
    "sample_sha256": pl.String(),
    # live | tombstone (video gone) | selected (this encoder fingerprint is the one to read)
    # | dropped (the files of this generation are deleted) | damaged (this sample is no source of features any more)
    "state": pl.String(),
}

# One row per failure, append-only. An empty encoder or fingerprint means "whatever the encoder".
FAILURES: dict[str, pl.DataType] = {
    "run_id": pl.String(),
    "video_id": pl.String(),
    "uri": pl.String(),
    "content_hash": pl.String(),
    "stage": pl.String(),  # list | identify | decode | encode | stage
    "encoder": pl.String(),
    "fingerprint": pl.String(),
    "reason": pl.String(),
    "message": pl.String(),
    "decoder": pl.String(),  # its name and version, of decode failures; null in rows of stores that did not say it
    "permanent": pl.Boolean(),  # null: released, the failure counts no more
    "attempts": pl.Int64(),
    "at_s": pl.Float64(),  # Unix time
}

TABLES = {"videos": VIDEOS, "staged": STAGED, "samples": SAMPLES, "failures": FAILURES}

# `staged` is rewritten after each publish; the others only grow, so that a pinned version stays readable.
APPEND_ONLY = ("videos", "samples", "failures")
