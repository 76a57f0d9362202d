import h5py
import numpy as np
import pytest

from hvlm.errors import Reason, UserError, VideoError
from pipelines.store.feature_files import FeatureFormat, FeatureReader, ImportConfig, check_features

FORMAT = FeatureFormat(encoder="i3d", extractor="I3D", dim=4, stride_s=0.64, clip_s=0.64, offset_s=0.0)


def config(uri, **options):
    return ImportConfig(store_uri="unused", features_uri=str(uri), format=FORMAT, **options)


def arrays(count=2):
    return {
        f"v{index}": np.random.default_rng(index).normal(size=(3 + index, 4)).astype(np.float32)
        for index in range(count)
    }


def ids(reader):
    return reader.listing().frame["video_id"].to_list()


def test_npy_npz_and_hdf5_give_the_same_arrays(tmp_path):
    content = arrays()
    for name in ("npy", "npz", "deep/npy"):
        (tmp_path / name).mkdir(parents=True)
    for video_id, array in content.items():
        np.save(tmp_path / f"npy/{video_id}.npy", array)
        np.savez(tmp_path / f"npz/{video_id}.npz", rgb=array, other=array * 0)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for video_id, array in content.items():
            file.create_dataset(f"train/{video_id}/features", data=array)
            file.create_dataset(f"flat/{video_id}", data=array)
    readers = [FeatureReader(config(tmp_path / "npy")), FeatureReader(config(tmp_path / "npz", npz_key="rgb"))]
    for reader in readers:
        assert ids(reader) == ["v0", "v1"]
        for row in reader.listing().frame.to_dicts():
            assert (reader.read(row["uri"]) == content[row["video_id"]]).all()
    reader = FeatureReader(config(tmp_path / "all.h5", video_id="path"))
    assert ids(reader) == ["flat/v0", "flat/v1", "train/v0/features", "train/v1/features"]
    rows = {row["video_id"]: row["uri"] for row in reader.listing().frame.to_dicts()}
    with reader.opened():
        assert (reader.read(rows["flat/v1"]) == content["v1"]).all()


def test_the_stems_of_hdf5_datasets(tmp_path):
    """A dataset that is alone in its group is named by the group, any other by itself; none may share its name."""
    names = ["v_a/c3d_features", "train/v_b/c3d_features", "flat/c", "flat/d", "e", "two/x", "two/more/x", "f/y", "f/z"]
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for name in names:
            file.create_dataset(name, data=np.zeros((3, 4)))
        file.create_dataset("g/y", data=np.zeros((3, 4)))
        file.create_dataset("g/w", data=np.zeros((3, 4)))
    listing = FeatureReader(config(tmp_path / "all.h5")).listing()
    assert listing.frame["video_id"].to_list() == ["c", "d", "e", "more", "two", "v_a", "v_b", "w", "z"]
    assert {(row["video_id"], row["reason"]) for row in listing.rejected} == {("y", "duplicate_id")}


def test_missing_and_empty_sources(tmp_path):
    with pytest.raises(UserError):
        FeatureReader(config(tmp_path / "none")).listing()
    with pytest.raises(UserError):
        FeatureReader(config(tmp_path)).listing()
    with pytest.raises(UserError, match="features_uri"):
        FeatureReader(config(tmp_path / "none.h5")).listing()
    (tmp_path / "broken.h5").write_bytes(b"text")
    with pytest.raises(UserError, match="HDF5"):
        FeatureReader(config(tmp_path / "broken.h5")).listing()


def test_unreadable_files_are_failures_of_one_video(tmp_path):
    (tmp_path / "text.npy").write_bytes(b"text")
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.zeros(4), b=np.zeros(4))
    (tmp_path / "half.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:100])
    reader = FeatureReader(config(tmp_path))
    cases = {
        "text.npy": "pickle",
        "words.npy": "not numbers",
        "objects.npy": "pickle",
        "two.npz": "a, b",
        "half.npz": "zip",
    }
    for name, words in cases.items():
        with pytest.raises(VideoError, match=words) as caught:
            reader.read(str(tmp_path / name))
        assert (caught.value.reason, caught.value.permanent) == (Reason.UNREADABLE, True)
    with pytest.raises(VideoError) as caught:
        reader.read(str(tmp_path / "gone.npy"))
    assert not caught.value.permanent


def test_one_dimension_is_one_row_and_zero_rows_stay():
    assert check_features(np.arange(4.0), FORMAT, "v").shape == (1, 4)
    found = check_features(np.zeros((2, 4), np.float32), FORMAT, "v")
    assert found.dtype == np.float16 and found.shape == (2, 4)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(5), r"\(5,\), the config says \(T, 4\)"),
        (np.zeros((4, 9)), r"\(4, 9\)"),
        (np.zeros((2, 2, 4)), r"\(2, 2, 4\)"),
        (np.zeros((0, 4)), "no rows"),
        (np.array([[0, 0, 0, 0], [0, np.nan, 0, 0], [np.inf, 0, 0, 0]]), "2 of 3 rows .* the first is row 1"),
        (np.full((1, 4), 70_000.0), "65504"),
    ],
)
def test_what_cannot_be_imported(array, words):
    with pytest.raises(VideoError, match=words):
        check_features(array, FORMAT, "v")


@pytest.mark.parametrize(
    "values",
    [
        {"encoder": "I3D!"},
        {"extractor": ""},
        {"dim": 0},
        {"stride_s": 0.0},
        {"clip_s": -1.0},
        {"offset_s": -1.0},
        {"fps": 0.0},
    ],
)
def test_wrong_formats_are_refused(values):
    good = {"encoder": "i3d", "extractor": "I3D", "dim": 4, "stride_s": 0.64, "clip_s": 0.64, "offset_s": 0.0}
    with pytest.raises(UserError, match=r"format\."):
        FeatureFormat(**good | values)
