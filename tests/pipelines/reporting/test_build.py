"""From MLflow to the page and back: written, logged, the same bytes again, refused or flagged."""

from dataclasses import replace
from pathlib import Path

import pytest

from hvlm.errors import UserError
from pipelines.reporting.build import PAGE, build_report
from tests.pipelines.reporting.made_runs import made_run, write_run


def _page(config, command="python -m jobs.report"):
    return Path(build_report(config, command).page_uri.removeprefix("file://")).read_bytes()


def test_page_is_written_logged_and_the_same_again(client, experiment, config):
    ids = [write_run(client, experiment[1], made_run(method="ours", seed=seed)) for seed in (0, 1)]
    first = _page(config)
    outcome = build_report(config, "python -m jobs.report")
    assert Path(outcome.page_uri).read_bytes() == first
    run = client.get_run(outcome.run_id)
    assert run.info.status == "FINISHED" and run.data.tags["report.runs"] == ",".join(ids)
    assert {file.path for file in client.list_artifacts(outcome.run_id)} == {PAGE, "config.json"}
    assert Path(client.download_artifacts(outcome.run_id, PAGE)).read_bytes() == first
    assert all(run_id.encode() in first for run_id in ids)
    assert _page(replace(config, output_uri=f"{config.output_uri}-2")) == first


def test_other_samples_are_refused_or_flagged_in_red(client, experiment, config):
    write_run(client, experiment[1], made_run(method="flat"))
    other = write_run(client, experiment[1], made_run(method="ours", keys=["k0", "k1", "k2", "new"]))
    with pytest.raises(UserError, match=f"run {other} \\(ours\\): val has other samples, 4 instead of 4, lacks 'k3'"):
        build_report(config, "x")
    assert not Path(config.output_uri, PAGE).exists()
    page = _page(replace(config, on_mismatch="flag", baseline="flat")).decode()
    assert 'class="banner"' in page and '<tr class="flag"><td>flat' not in page
    assert page.count('<tr class="flag"><td>ours') == 3  # in the table of all and in those of two metrics
    assert "not the same samples" in page


def test_runs_without_an_evaluation_stand_on_the_page(client, experiment, config):
    write_run(client, experiment[1], made_run())
    bare = write_run(client, experiment[1], replace(made_run(), tags={"sweep.method": "<late>"}), files=False)
    page = _page(config).decode()
    assert f"<code>{bare}</code>" in page and "was never evaluated" in page and "&lt;late&gt;" in page


def test_nothing_to_compare_is_the_users_to_mend(client, experiment, config):
    write_run(client, experiment[1], replace(made_run(), tags={}), files=False)
    with pytest.raises(UserError, match="was never evaluated"):
        build_report(config, "x")
