"""The embedder: records per row, padding and grouping without influence, text spaces, and proposals."""

from types import SimpleNamespace

import numpy as np
import pytest

from hvlm.data.collate import VideoRows
from hvlm.metrics.linear_probe import fit_linear_probe
from hvlm.metrics.localiser import LocaliserConfig
from hvlm.metrics.proposals import ProposalConfig
from pipelines.evaluation.classification_group import vocabulary
from pipelines.evaluation.hierarchical_vlm.embedding import (
    Embedder,
    EmbedSetup,
    Finders,
    LocaliserTask,
    mean_levels,
    rows_in_span,
)
from pipelines.evaluation.hierarchical_vlm.labels import row_labels
from pipelines.evaluation.hierarchical_vlm.records import HEAD, PROBE
from pipelines.evaluation.metric_table import KINDS
from pipelines.store.manifest import open_manifest
from pipelines.training.checkpoints import find_checkpoint
from tests.pipelines.evaluation.planted_store import CLIP, NUM_ROWS, read_only_spans, source_of


def _setup(planted, **changes):
    values = {
        "checkpoint_uri": find_checkpoint(planted[1]).uri,
        "source": source_of(planted[0]),
        "video_embedding": "top",
        "rows_per_video": 1000,
        "rows_per_forward": 4096,
        "device": "cpu",
        "threads": 1,
    }
    return EmbedSetup(**(values | changes))


def _rows(planted, count=6):
    return list(open_manifest(planted[0], ["clip", "c3d"]).frame.sort("key").iter_rows(named=True))[:count]


def test_records_follow_the_rows_and_carry_both_kinds(planted):
    rows = _rows(planted)[::-1]
    records = Embedder(_setup(planted)).embed(rows)
    assert [record.key for record in records] == [row["key"] for row in rows]
    record = records[0]
    assert record.num_rows == NUM_ROWS
    assert record.kinds["ours"].rows_ND.shape == (NUM_ROWS, 32)
    assert record.kinds["raw"].rows_ND.shape[0] == NUM_ROWS
    # 30 -> 15 -> 7 -> 3 -> 1: four levels above the rows, the last a single node without neighbours
    for kind in KINDS:
        assert len(record.kinds[kind].level_consistency) == 4
        assert np.isnan(record.kinds[kind].level_consistency[-1])
    assert record.kinds["raw"].boundary.num_across == 4
    assert record.spaces["ours"].captions_PE.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(record.spaces["ours"].captions_PE, axis=1), 1, atol=1e-5)


def test_grouping_and_padding_have_no_influence(planted):
    rows = _rows(planted)
    together = Embedder(_setup(planted)).embed(rows)
    alone = Embedder(_setup(planted, rows_per_forward=1)).embed(rows)
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.kinds["ours"].rows_ND, other.kinds["ours"].rows_ND, atol=1e-5)
        np.testing.assert_allclose(one.spaces["ours"].captions_PE, other.spaces["ours"].captions_PE, atol=1e-5)


def test_sampled_rows_match_their_centres(planted):
    record = Embedder(_setup(planted, rows_per_video=4)).embed(_rows(planted, 1))[0]
    assert record.sampled_N.tolist() == [0, 10, 19, 29]
    np.testing.assert_allclose(record.centre_s_N, record.sampled_N + 0.5)
    assert record.kinds["ours"].rows_ND.shape[0] == 4


@pytest.mark.parametrize(("kind", "width"), [("top", 32), ("mean", 32), ("mean_and_top", 64)])
def test_video_embedding(planted, kind, width):
    record = Embedder(_setup(planted, video_embedding=kind)).embed(_rows(planted, 1))[0]
    assert record.kinds["ours"].video_D.shape == (width,)


def test_mean_levels_are_means_of_two_or_three_rows():
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    levels = mean_levels(VideoRows(rows, np.arange(5.0), 0), __import__("torch").device("cpu"))
    assert [len(level) for level in levels] == [5, 2, 1]
    np.testing.assert_allclose(levels[1], [rows[:2].mean(axis=0), rows[2:].mean(axis=0)])


def test_rows_in_span_takes_the_nearest_row_of_an_empty_span():
    centres = np.array([0.5, 1.5, 2.5])
    assert rows_in_span(centres, [0.0, 2.0]).tolist() == [0, 1]
    assert rows_in_span(centres, [1.6, 1.9]).tolist() == [1]


def test_texts_go_through_the_models_text_head(planted):
    spaces = Embedder(_setup(planted)).encode_texts(["a red disc", "a blue star"], CLIP)
    assert spaces["ours"].shape == (2, 16)
    assert spaces["raw"].shape[0] == 2
    np.testing.assert_allclose(np.linalg.norm(spaces["ours"], axis=1), 1, atol=1e-5)


def test_probe_and_head_on_planted_rows_find_the_actions(planted):
    embedder, rows = Embedder(_setup(planted)), _rows(planted, 12)
    records = embedder.embed(rows)
    names = vocabulary(records)
    labels = np.concatenate([row_labels(record, names) for record in records])
    probes = {
        kind: fit_linear_probe(
            np.concatenate([record.kinds[kind].rows_ND for record in records]),
            labels,
            num_classes=5,
            l2=0.01,
            kind="multinomial",
        )
        for kind in KINDS
    }
    task = LocaliserTask(
        names=names,
        config=LocaliserConfig(num_steps=60, num_checks=1, batch_size=16, lr=1e-2),
        proposals=ProposalConfig(),
        seed=0,
    )
    localisers = embedder.fit_localisers(rows, rows, task)
    finders = Finders(probes=probes, localisers=localisers, proposals=task.proposals)
    found = embedder.localise(rows[:1], finders)[0]
    truth = {(item["label"], *item["segment"]) for item in records[0].annotations}
    for method in (PROBE, HEAD):
        best = found.segments[method]["raw"]
        near = {
            (names[c], round(float(s[0])), round(float(s[1])))
            for c, s in zip(best.label_N[:4], best.span_N2[:4], strict=True)
        }
        assert {(label, round(start), round(end)) for label, start, end in truth} & near, method
    # ours are the model's own rows and pyramid, raw the features as they were read and a pyramid of means
    assert {kind: len(each.mean_D) for kind, each in localisers.items()} == {
        "ours": 32,
        "raw": len(records[0].kinds["raw"].video_D),
    }


def test_proposed_segments_end_at_gaps(planted, monkeypatch):
    read_only_spans(monkeypatch, "clip", "c3d")
    probe = SimpleNamespace(probabilities=lambda rows: np.tile([0.0, 1.0], (len(rows), 1)))
    head = SimpleNamespace(find=lambda video, pyramid, proposals: video)
    finders = Finders(
        probes=dict.fromkeys(KINDS, probe), localisers=dict.fromkeys(KINDS, head), proposals=ProposalConfig()
    )
    found = Embedder(_setup(planted)).localise(_rows(planted, 1), finders)[0]
    for kind in KINDS:
        assert sorted(found.segments[PROBE][kind].span_N2.tolist()) == [[3.0, 13.0], [16.0, 27.0]]
        cells = found.segments[HEAD][kind].cell_T2  # what the head is given
        assert [cells[0, 0], cells[9, 1], cells[10, 0], cells[-1, 1]] == [3.0, 13.0, 16.0, 27.0]
