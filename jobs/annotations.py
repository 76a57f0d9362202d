"""Annotation files of two-level data sets become the annotation file of a source: captions and summaries of each video.

    python -m jobs.annotations --config jobs/configs/annotations.yaml
    python -m jobs.annotations --config jobs/configs/annotations.yaml source.uri=/videos source.video_id=stem

Name the file as `source.annotations_uri` of jobs.extract or `annotations_uri` of jobs.import_features. Nothing is
written where two subsets share a video.
"""

from infra.cluster import reject_relative_paths_in_job
from jobs.entry import run_job
from pipelines.store.annotations import AnnotationsConfig, AnnotationsReport, make_annotations
from pipelines.store.findings import listed


def run(config: AnnotationsConfig) -> int:
    """Write the file and print the report."""
    reject_relative_paths_in_job({"output_uri": config.output_uri})
    report = make_annotations(config)
    print(f"annotations {config.output_uri}")
    print(f"videos      {report.num_videos}, {report.num_captions} captions, {report.num_summaries} summaries of parts")
    for line in _findings(report, config.max_listed):
        print(line)
    return 0


def _findings(report: AnnotationsReport, limit: int) -> list[str]:
    lines = listed("rows", "are impossible and were cut or left out", report.problems, limit)
    lines += listed("bare", "summaries cover no caption of their pass", report.bare, limit)
    if report.reconciliation:
        without = report.reconciliation
        lines += listed("unlabelled", "videos of the source have no annotation", without.without_annotation, limit)
        lines += listed("missing", "annotated videos are not in the source", without.without_video, limit)
    return lines


if __name__ == "__main__":
    run_job("annotations", __doc__, AnnotationsConfig, run)
