"""Files of existing features: a folder or glob of `.npy`/`.npz` files, or one HDF5 file with one dataset per video."""

import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from hvlm.config import Config, require
from hvlm.errors import Reason, UserError, VideoError
from infra import storage
from pipelines.store.publish import PublishConfig
from pipelines.store.sources import Entry, SourceListing, build_listing, list_folder_or_glob, load_annotations

_HDF5_EXTENSIONS = (".h5", ".hdf5")
_ARRAY_EXTENSIONS = (".npy", ".npz")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureFormat(Config):
    """What the rows of the imported arrays are.

    Args:
        encoder: name of the column in the store.
        extractor: the model and layer in words, e.g. "I3D RGB+flow".
        dim: D.
        stride_s, clip_s, offset_s: row i covers [offset_s + i * stride_s, ... + clip_s) seconds.
        fps: frame rate that the extractor read, if it is known.
        text_extractor: the text encoder in words, where text features come with the arrays (`text_features_uri`).
    """

    encoder: str
    extractor: str
    dim: int
    stride_s: float
    clip_s: float
    offset_s: float
    fps: float | None = None
    text_extractor: str | None = None

    def __post_init__(self) -> None:
        good = re.fullmatch(r"[a-z][a-z0-9_]*", self.encoder) is not None
        expected = "lower-case letters, digits and _, a letter first"
        require(good, what="format.encoder", got=self.encoder, expected=expected, do="rename it; it names a folder")
        require(bool(self.extractor), what="format.extractor", got="''", expected="a text", do="say which model it was")
        require(self.dim >= 1, what="format.dim", got=self.dim, expected="at least 1", do="set the features' dimension")
        for name in ("stride_s", "clip_s"):
            value = getattr(self, name)
            require(
                value > 0, what=f"format.{name}", got=value, expected="above 0 seconds", do="see how they were made"
            )
        require(self.offset_s >= 0, what="format.offset_s", got=self.offset_s, expected="at least 0", do="set e.g. 0")
        fine = self.fps is None or self.fps > 0
        require(fine, what="format.fps", got=self.fps, expected="above 0, or null", do="set e.g. 25")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportConfig(Config):
    """One import: which features, with which annotations, into which store.

    Args:
        features_uri: folder or glob of .npy/.npz files, or one .h5/.hdf5 file.
        annotations_uri: ActivityNet JSON, or null.
        text_features_uri: .npz with the vectors of captions and summaries (`pipelines.store.text_features`), or null.
        npz_key: which array of an .npz file; null when each holds one.
        video_id: "stem" = file name without extension; "path" = path below the folder. Datasets of an HDF5 file: last
            part or whole name; with "stem", the only dataset of a group is named by its group ("v_x/c3d_features" is
            "v_x").
        replace_source: let these features take the place of the source that the store has followed; refused otherwise.
        max_listed: ids that are printed of each list.
    """

    store_uri: str
    features_uri: str
    format: FeatureFormat
    annotations_uri: str | None = None
    text_features_uri: str | None = None
    npz_key: str | None = None
    video_id: Literal["stem", "path"] = "stem"
    replace_source: bool = False
    publish: PublishConfig = field(default_factory=PublishConfig)
    max_listed: int = 10

    def __post_init__(self) -> None:
        require(
            (self.text_features_uri is None) == (self.format.text_extractor is None),
            what="text_features_uri",
            got=f"{self.text_features_uri} with format.text_extractor {self.format.text_extractor}",
            expected="both, or neither",
            do="say in format.text_extractor which encoder made the text features",
        )


class FeatureReader:
    """Lists and reads the arrays of a source; HDF5 files stay open inside `opened()`."""

    def __init__(self, config: ImportConfig) -> None:
        self._config = config
        self._uri = storage.absolute_uri(config.features_uri)
        self._hdf5: h5py.File | None = None

    @property
    def is_hdf5(self) -> bool:
        """Whether the source is one HDF5 file."""
        return self._uri.lower().endswith(_HDF5_EXTENSIONS)

    def listing(self) -> SourceListing:
        """Return the videos that have features; nothing but HDF5's table of contents is read.

        Raises:
            UserError: the source is missing or empty.
        """
        config = self._config
        if self.is_hdf5:
            with self.opened():
                entries = self._hdf5_entries()
        else:
            entries = list_folder_or_glob(self._uri, _ARRAY_EXTENSIONS, config.video_id)
        return build_listing(entries, load_annotations(config.annotations_uri), "full", self._uri)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Keep the HDF5 file open (a remote one is copied once); nothing to do for a folder."""
        if not self.is_hdf5:
            yield
            return
        with ExitStack() as stack:
            try:
                path = stack.enter_context(storage.local_copy(self._uri))
                self._hdf5 = stack.enter_context(h5py.File(path, "r"))
            except OSError as error:
                expected = "an existing, readable HDF5 file"
                raise UserError(
                    what="features_uri", got=f"{self._uri} ({error})", expected=expected, do="check it"
                ) from error
            try:
                yield
            finally:
                self._hdf5 = None

    def read(self, uri: str) -> npt.NDArray[Any]:
        """Return the array as it is stored.

        Raises:
            VideoError: unreadable, or not one array of numbers.
        """
        try:
            if self._hdf5 is not None:
                return _numbers(self._hdf5[uri.removeprefix(f"{self._uri}#")][()], uri)
            with storage.local_copy(uri) as path:
                return _numbers(_load(path, self._config.npz_key), uri)
        except FileNotFoundError as error:
            raise VideoError(Reason.STORAGE_TRANSIENT, f"{uri} is gone", permanent=False) from error
        except PermissionError as error:
            raise VideoError(Reason.STORAGE_PERMANENT, f"{uri}: permission denied") from error
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise VideoError(Reason.UNREADABLE, f"{uri}: {error}") from error

    def _hdf5_entries(self) -> list[Entry]:
        if self._hdf5 is None:
            raise RuntimeError("the HDF5 file is not open")
        info = storage.info(self._uri)
        names: list[str] = []
        self._hdf5.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        ids = {name: name for name in sorted(names)} if self._config.video_id == "path" else _hdf5_stems(sorted(names))
        return [Entry(video_id, f"{self._uri}#{name}", info, {}) for name, video_id in ids.items()]


def check_features(array: npt.NDArray[Any], described: FeatureFormat, video_id: str) -> npt.NDArray[np.float16]:
    """Return imported features as (T, D) float16; a 1-D array of D numbers is one row.

    Raises:
        VideoError: another shape or dimension, no rows, NaN, infinity, or values beyond float16.
    """
    shape = array.shape
    if array.ndim == 1 and shape[0] == described.dim:
        array = array[None, :]
    if array.ndim != 2 or array.shape[1] != described.dim:
        raise VideoError(Reason.UNREADABLE, f"'{video_id}' has the shape {shape}, the config says (T, {described.dim})")
    if not len(array):
        raise VideoError(Reason.ZERO_FRAMES, f"'{video_id}' has no rows")
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        found = f"{int(bad.sum())} of {len(array)} rows of '{video_id}' hold NaN or infinity, the first is row {first}"
        raise VideoError(Reason.UNREADABLE, found)
    largest = float(np.abs(array).max())
    if largest > float(np.finfo(np.float16).max):
        raise VideoError(
            Reason.UNREADABLE, f"'{video_id}' holds {largest:g}, float16 ends at 65504; scale the features"
        )
    return array.astype(np.float16)


def _hdf5_stems(names: list[str]) -> dict[str, str]:
    """Return dataset name -> id: its last part, or its group's where the group holds no other (ActivityNet's C3D)."""
    groups = Counter(name.rpartition("/")[0] for name in names)
    alone = (name for name in names if "/" in name and groups[name.rpartition("/")[0]] == 1)
    own = {name: name.split("/")[-2] for name in alone}
    return {name: own.get(name) or name.rpartition("/")[2] for name in names}


def _load(path: Path, npz_key: str | None) -> Any:
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        return loaded
    with loaded:
        if npz_key is None and len(loaded.files) != 1:
            raise ValueError(f"holds the arrays {', '.join(loaded.files)}; say which with npz_key")
        return loaded[npz_key or loaded.files[0]]


def _numbers(value: Any, uri: str) -> npt.NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{uri} holds {array.dtype}, not numbers")
    return array
