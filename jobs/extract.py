"""Videos in, features out: snapshot → plan → decode → encode → stage → publish.

    python -m jobs.extract --config jobs/configs/extract_demo.yaml source.uri=/my/videos store_uri=/my/store

Killed or interrupted, the same command continues. Run again when finished, it does nothing and says so.
"""

from infra.cluster import reject_relative_paths_in_job
from jobs.entry import run_job
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.report import extraction_report
from pipelines.extraction.run import extract


def job(config: ExtractConfig) -> int:
    """Extract and print what was done."""
    cache = config.decode.cache
    reject_relative_paths_in_job({"store_uri": config.store_uri, "decode.cache.uri": cache.uri if cache else None})
    print(extraction_report(config.store_uri, extract(config)))
    return 0


if __name__ == "__main__":
    run_job("extract", __doc__, ExtractConfig, job)
