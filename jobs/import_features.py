"""Existing features (.npy/.npz per video, or one HDF5) and annotations become a feature store.

    python -m jobs.import_features --config jobs/configs/import_features.yaml features_uri=/data/i3d
    store_uri=/data/store

Run again, it imports what is new or changed and nothing else. Exit code 1 when nothing could be published.
"""

from infra.cluster import reject_relative_paths_in_job
from jobs.entry import run_job
from pipelines.store.feature_files import ImportConfig
from pipelines.store.findings import listed
from pipelines.store.imports import ImportReport, import_features


def run(config: ImportConfig) -> int:
    """Print the report and return the exit code."""
    reject_relative_paths_in_job({"store_uri": config.store_uri})
    report = import_features(config)
    snapshot, published = report.snapshot, report.published
    print(f"store      {config.store_uri}, version {published.version}")
    print(
        f"features   {snapshot.new} new, {snapshot.changed} changed, {snapshot.renamed} renamed, "
        f"{snapshot.unchanged} unchanged, {snapshot.tombstoned} gone"
    )
    print(
        f"published  {published.published} now, {published.already_published} before, {published.failed} failed; "
        f"{published.shards} shards, {published.shard_bytes / 2**20:.1f} MiB"
    )
    if published.incomplete:
        print(f"incomplete {published.incomplete}: transient failures; the next run tries them again")
    print(f"zero rows  {report.num_zero_rows}, kept as they are")
    if report.num_new_texts is not None:
        print(f"texts      {report.num_new_texts} new")
    for line in _findings(report, config.max_listed):
        print(line)
    if not published.published and not published.tombstoned and not snapshot.relabelled:
        print("result     nothing new to import" if published.already_published else "result     nothing was imported")
    return 0 if published.published or published.already_published else 1


def _findings(report: ImportReport, limit: int) -> list[str]:
    failed = [f"{row['video_id']}: {row['reason']}: {row['message']}" for row in [*report.failures, *report.rejected]]
    lines = listed("failed", "arrays were not imported", failed, limit)
    if report.reconciliation:
        without = report.reconciliation
        lines += listed("unlabelled", "videos have features and no annotation", without.without_annotation, limit)
        lines += listed("missing", "annotated videos have no features", without.without_video, limit)
    problems = [f"{video_id}: {problem}" for video_id, problem in report.annotation_problems]
    lines += listed("annotation", "impossible segments", problems, limit)
    lines += listed("segments", "annotated segments do not lie in their videos", report.cut, limit)
    odd = [
        f"{video_id}: rows cover {covered:.1f} s of {claimed:.1f} s" for video_id, covered, claimed in report.doubtful
    ]
    return lines + listed("doubtful", "videos disagree with their duration; check format.stride_s", odd, limit)


if __name__ == "__main__":
    run_job("import_features", __doc__, ImportConfig, run)
