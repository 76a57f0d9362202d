import dataclasses
import json

import h5py
import numpy as np
import pytest

from hvlm.errors import UserError
from pipelines.store.catalog import FeatureStore
from pipelines.store.feature_files import FeatureFormat, ImportConfig
from pipelines.store.imports import encoder_column, import_features
from pipelines.store.manifest import open_manifest, read_sample
from pipelines.store.text_features import read_text_features, store_text_uri
from pipelines.store.upkeep.verify import verify_store

FORMAT = {"encoder": "i3d", "extractor": "I3D RGB", "dim": 4, "stride_s": 0.64, "clip_s": 0.64, "offset_s": 0.5}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    for index in range(6):
        np.save(folder / f"v_{index:011d}.npy", array(index))
    return folder


def array(index):
    return np.random.default_rng(index).normal(size=(10 + index, 4)).astype(np.float32)


def config(folder, annotations=None, **changes):
    return ImportConfig(
        store_uri=str(folder.parent / "store"),
        features_uri=str(folder),
        annotations_uri=annotations and str(annotations),
        format=FeatureFormat(**FORMAT | changes),
    )


def annotate(folder, **videos):
    path = folder.parent / "gt.json"
    path.write_text(json.dumps({"database": videos}))
    return path


def samples(config):
    manifest = open_manifest(config.store_uri)
    rows = manifest.rows("i3d").to_dicts()
    return {row["video_id"]: read_sample(config.store_uri, row) for row in rows}


def test_a_folder_becomes_a_store(folder):
    video = {"subset": "validation", "duration": 8.0, "annotations": [{"label": "Rafting", "segment": [1.0, 2.0]}]}
    wanted = config(folder, annotate(folder, **{"00000000000": video, "lost": {}}), fps=25.0)
    report = import_features(wanted)
    assert (report.published.published, report.published.failed, report.failures) == (6, 0, [])
    found = samples(wanted)
    features, meta = found["v_00000000000"]
    assert features.dtype == np.float16 and (features == array(0).astype(np.float16)).all()
    assert (meta.split, meta.subset, meta.duration_s, meta.fps, meta.extractor) == (
        "val",
        "validation",
        8.0,
        25.0,
        "I3D RGB",
    )
    assert (meta.stride_s, meta.clip_s, meta.offset_s, meta.l2_normalised) == (0.64, 0.64, 0.5, False)
    assert meta.timestamps_s[:3] == [0.5, 1.14, 1.78]
    assert meta.annotations == [{"label": "Rafting", "segment": [1.0, 2.0]}]
    assert found["v_00000000003"][1].duration_s == pytest.approx(0.5 + 12 * 0.64 + 0.64)
    assert report.reconciliation.without_video == ["lost"]
    assert len(report.reconciliation.without_annotation) == 5
    assert verify_store(wanted.store_uri).problems == ()


def test_importing_again_does_nothing_and_new_files_are_added(folder):
    first = import_features(config(folder))
    again = import_features(config(folder))
    assert (again.published.published, again.published.version) == (0, first.published.version)
    np.save(folder / "late.npy", array(9))
    np.save(folder / "v_00000000001.npy", array(8))
    (folder / "v_00000000002.npy").unlink()
    report = import_features(config(folder))
    assert (report.snapshot.new, report.snapshot.changed, report.snapshot.tombstoned) == (1, 1, 1)
    found = samples(config(folder))
    assert len(found) == 6 and (found["v_00000000001"][0] == array(8).astype(np.float16)).all()


def test_bad_arrays_are_quarantined_and_the_others_go_on(folder):
    np.save(folder / "nan.npy", np.full((3, 4), np.nan))
    np.save(folder / "wide.npy", np.zeros((3, 5)))
    np.save(folder / "zero.npy", np.zeros((3, 4)))
    np.save(folder / "one.npy", np.ones(4))
    (folder / "text.npy").write_bytes(b"text")
    report = import_features(config(folder))
    assert (report.published.published, report.published.failed, report.num_zero_rows) == (8, 2, 3)
    assert {row["video_id"] for row in report.failures} == {"nan", "wide", "text"}
    assert set(FeatureStore.open(config(folder).store_uri).failures()["video_id"]) == {"nan", "wide", "text"}
    assert samples(config(folder))["one"][0].shape == (1, 4)
    again = import_features(config(folder))
    assert (again.published.published, again.published.failed) == (0, 2)


def test_another_dimension_everywhere_is_an_error_of_the_config_and_can_be_corrected(folder):
    with pytest.raises(UserError, match=r"format\.dim: got 8, but none of 6 arrays"):
        import_features(config(folder, dim=8))
    assert import_features(config(folder)).published.published == 6


def test_new_arrays_of_another_dimension_do_not_stop_a_store_of_good_ones(folder):
    import_features(config(folder))
    np.save(folder / "wide.npy", np.zeros((3, 8)))
    report = import_features(config(folder))
    assert [row["video_id"] for row in report.failures] == ["wide"]
    assert (report.published.already_published, report.published.failed) == (6, 1)
    np.save(folder / "late.npy", array(9))
    assert import_features(config(folder)).published.published == 1


def test_a_corrected_format_replaces_the_features(folder):
    np.save(folder / "wide.npy", np.zeros((3, 8)))
    import_features(config(folder))
    report = import_features(config(folder, stride_s=1.0))
    assert report.published.published == 6
    found = samples(config(folder))
    assert {meta.stride_s for _, meta in found.values()} == {1.0} and len(found) == 6
    assert (
        encoder_column(config(folder).format).fingerprint
        != encoder_column(config(folder, stride_s=1.0).format).fingerprint
    )


def test_a_doubtful_stride_is_reported(folder):
    videos = {f"{index:011d}": {"duration": (10 + index) * 0.64 + 0.5} for index in range(6)}
    annotations = annotate(folder, **videos)
    assert import_features(config(folder, annotations)).doubtful == []
    assert len(import_features(config(folder, annotations, stride_s=1.28)).doubtful) == 6


def test_one_hdf5_file(folder):
    path = folder.parent / "take #1.hdf5"
    with h5py.File(path, "w") as file:
        for index in range(4):
            file.create_dataset(f"v#{index}", data=array(index))
    wanted = config(path)
    assert import_features(wanted).published.published == 4
    assert (samples(wanted)["v#3"][0] == array(3).astype(np.float16)).all()
    assert import_features(wanted).published.published == 0


@pytest.mark.parametrize("name", ["v_{}", "v_{}/c3d_features", "c3d/v_{}"])
def test_hdf5_layouts_meet_the_annotations(folder, name):
    path = folder.parent / "c3d.hdf5"
    with h5py.File(path, "w") as file:
        for index in range(3):
            file.create_dataset(name.format(f"{index:011d}"), data=array(index))
    report = import_features(config(path, annotate(folder, **{f"{index:011d}": {} for index in range(3)})))
    assert (report.published.published, report.reconciliation.without_annotation) == (3, [])


def test_new_annotations_relabel_without_reading_the_features(folder, monkeypatch):
    import_features(config(folder, annotate(folder)))
    annotations = annotate(folder, **{"00000000004": {"subset": "training", "summary": "a raft"}})
    monkeypatch.setattr("pipelines.store.feature_files.FeatureReader.read", lambda *_: pytest.fail("read"))
    report = import_features(config(folder, annotations))
    assert (report.snapshot.relabelled, report.published.published) == (1, 1)
    assert samples(config(folder))["v_00000000004"][1].summary == "a raft"


def test_another_source_is_refused_before_it_takes_the_first_ones_videos_down(folder):
    import_features(config(folder))
    other = folder.rename(folder.parent / "moved")
    with pytest.raises(UserError, match="replace_source: true"):
        import_features(config(other))
    assert len(samples(config(other))) == 6
    report = import_features(dataclasses.replace(config(other), replace_source=True))
    assert (report.snapshot.renamed, report.snapshot.tombstoned) == (6, 0)


def with_texts(folder, extractor="words", **vectors):
    path = folder.parent / "texts.npz"
    np.savez(path, texts=np.array(list(vectors)), features=np.array(list(vectors.values()), np.float32))
    described = FeatureFormat(**FORMAT, text_extractor=extractor)
    return dataclasses.replace(config(folder), format=described, text_features_uri=str(path))


def test_text_features_come_with_their_column_and_never_change_there(folder):
    wanted = with_texts(folder, a=[1, 2], b=[3, 4])
    assert import_features(wanted).num_new_texts == 2
    manifest = open_manifest(wanted.store_uri)
    assert manifest.encoder_column("i3d").identity["text_extractor"] == "words"
    kept = read_text_features(store_text_uri(wanted.store_uri, manifest.encoders["i3d"]))
    assert kept.encode(["b", "a"]).tolist() == [[3, 4], [1, 2]]
    report = import_features(with_texts(folder, b=[3, 4], c=[5, 6]))
    assert (report.num_new_texts, report.published.published) == (1, 0)
    with pytest.raises(UserError, match="other vectors"):
        import_features(with_texts(folder, a=[9, 9]))
    other = import_features(with_texts(folder, "other words", a=[9, 9]))
    assert other.published.published == 6  # another text encoder, another column
    found = open_manifest(wanted.store_uri)
    assert found.encoders["i3d"] != manifest.encoders["i3d"]
    assert read_text_features(store_text_uri(wanted.store_uri, found.encoders["i3d"])).encode(["a"]).tolist() == [
        [9, 9]
    ]


def test_a_column_without_text_features_has_the_fingerprint_that_it_always_had():
    column = encoder_column(FeatureFormat(**FORMAT))
    assert "text_extractor" not in column.identity
    assert column.fingerprint != encoder_column(FeatureFormat(**FORMAT, text_extractor="words")).fingerprint


def test_text_features_and_their_extractor_belong_together(folder):
    for changes in ({"text_features_uri": "t.npz"}, {"format": FeatureFormat(**FORMAT, text_extractor="words")}):
        with pytest.raises(UserError, match=r"text_features_uri.*both, or neither"):
            dataclasses.replace(config(folder), **changes)
