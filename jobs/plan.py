"""What an extraction would do, and why; nothing is run or written.

python -m jobs.plan --config jobs/configs/extract_demo.yaml source.uri=/my/videos store_uri=/my/store
"""

from jobs.entry import run_job
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.preview import preview
from pipelines.extraction.report import preview_report


def job(config: ExtractConfig) -> int:
    """Print the plan."""
    print(preview_report(preview(config)))
    return 0


if __name__ == "__main__":
    run_job("plan", __doc__, ExtractConfig, job)
