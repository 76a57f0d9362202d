"""Reading MLflow: what was written comes back; a run without an evaluation is named with the reason."""

from dataclasses import replace

import pytest

from hvlm.errors import UserError
from pipelines.reporting.runs import REPORT_TAG, read_runs
from tests.pipelines.reporting.made_runs import MEAN_AP, RECALL, made_run, metric_row, write_run

CURVES = {
    "loss": {"train/loss/total": ([1, 2], [2.0, 1.0])},
    "collapse: unit_std": {"dev/hidden/unit_std": ([2], [0.5])},
}
OF_HIERVL = {
    "loss": {"train/loss/child/total": ([1, 2], [6.0, 5.0]), "train/loss/parent/total": ([1, 2], [9.0, 7.0])},
    "collapse: effective_rank": {"dev/clip/effective_rank": ([2], [3.5])},
}


def test_curves_of_hiervl_are_read_by_its_own_names(client, experiment, config):
    write_run(client, experiment[1], made_run(method="sa", curves=OF_HIERVL))
    (read,), _ = read_runs(config)
    assert {title: curves for title, curves in read.curves.items() if curves} == OF_HIERVL


def test_a_run_comes_back_as_it_was_logged(client, experiment, config):
    made = made_run(method="ours", curves=CURVES)
    run_id = write_run(client, experiment[1], made)
    (read,), without = read_runs(config)
    assert without == []
    assert (read.run_id, read.short_id, read.seed, read.commit, read.step) == (run_id, run_id[:8], "0", "c" * 40, 20)
    assert (read.params, read.rows, read.document) == (made.params, made.rows, made.document)
    assert read.samples["val"].equals(made.samples["val"])
    assert read.logged == {RECALL: 0.5, MEAN_AP: 0.5}
    assert {title: curves for title, curves in read.curves.items() if curves} == CURVES
    assert read.metrics["train/loss/total"] == 1.0


def test_the_newest_value_of_the_evaluated_step_counts_not_that_of_a_later_step(client, experiment, config):
    run_id = write_run(client, experiment[1], made_run())
    client.log_metric(run_id, RECALL, 0.75, step=20)
    client.log_metric(run_id, RECALL, 0.125, step=30)
    assert read_runs(config)[0][0].logged[RECALL] == 0.75


def test_every_run_without_an_evaluation_says_why(client, experiment, config):
    bare = made_run()
    write_run(client, experiment[1], replace(bare, tags={}, status="FAILED"), files=False)
    write_run(client, experiment[1], bare, files=False)
    write_run(client, experiment[1], replace(bare, document=bare.document | {"format_version": 2}))
    write_run(client, experiment[1], replace(bare, document=bare.document | {"splits": {"test": 4}}))
    write_run(client, experiment[1], replace(bare, tags={REPORT_TAG: "x"}), files=False)  # a page, no method
    parent = write_run(client, experiment[1], replace(bare, tags={}), files=False)
    write_run(client, experiment[1], replace(bare, tags={"mlflow.parentRunId": parent}), files=False)
    evaluated, without = read_runs(replace(config, splits=("val",)))
    assert evaluated == []
    assert [(run.status, run.why) for run in without] == [
        ("FAILED", "was never evaluated"),
        ("FINISHED", "its artifacts have no evaluation/step-000000020/metrics.json"),
        ("FINISHED", "metrics.json has format 2, this page reads 1"),
        ("FINISHED", "was evaluated on test only"),
        ("FINISHED", "was never evaluated: it is the parent of other runs here"),
        ("FINISHED", "was never evaluated"),
    ]
    _, without = read_runs(replace(config, store_mark="store-12345678"))
    assert without[0].why == "was never evaluated on store-12345678"


def test_filter_ids_and_patterns_choose(client, experiment, config):
    extra = [metric_row("val/frame/unit_std", 0.5, headline=False), metric_row(RECALL, 0.5)]
    one = write_run(client, experiment[1], made_run(method="one", rows=extra))
    two = write_run(client, experiment[1], made_run(method="two"))
    assert [run.run_id for run in read_runs(replace(config, filter='tags."sweep.method" = "two"'))[0]] == [two]
    assert [run.run_id for run in read_runs(replace(config, run_ids=(two,)))[0]] == [two, one]
    (chosen,) = read_runs(replace(config, experiment=None, run_ids=(one,), metrics=("*/unit_std",)))[0]
    assert list(chosen.rows) == ["val/frame/unit_std"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run_ids": ("0" * 32,)}, "run_ids: got 0{32}"),
        ({"experiment": "nowhere"}, "experiment: got nowhere"),
        ({"filter": "nonsense ~ 1"}, "filter: got nonsense"),
        ({"filter": "tags.x = 'none'"}, "no runs"),
    ],
)
def test_wrong_names_are_the_users_to_mend(config, changes, message):
    with pytest.raises(UserError, match=message):
        read_runs(replace(config, **changes))


def test_a_deleted_run_is_refused(client, experiment, config):
    run_id = write_run(client, experiment[1], made_run(), files=False)
    client.delete_run(run_id)
    with pytest.raises(UserError, match="deleted"):
        read_runs(replace(config, run_ids=(run_id,)))
