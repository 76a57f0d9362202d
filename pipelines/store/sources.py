"""What is there: the videos of a folder, a glob or a list, with their metadata.

A list is a `.txt` (one URI per line, `#` starts a comment), or a `.csv`/`.parquet` with the columns `video_id` and
`uri`. Relative URIs are relative to the list's folder. These further columns are understood: `subset` (training |
validation | testing), `split` (train | dev | val | test, taken as it is), `summary` (video-level text), `caption` (text
of the whole video); all others travel into the sample's json under "columns". Without a list of ids, the id is the
file's path below the folder (in a txt list its name) without the extension.

Lines of a list that are equal count once; lines of one file that differ in their `caption` alone give it several
captions, in the list's order.
"""

import errno
import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from hvlm.config import Config, require
from hvlm.data.activitynet import Annotations, Reconciliation, VideoAnnotation, read_annotations, reconcile
from hvlm.data.keys import video_key
from hvlm.data.splits import SPLITS, SplitConfig, assign_split
from hvlm.errors import Reason, UserError, VideoError
from infra import storage
from pipelines.store.fingerprint import canonical_json
from pipelines.store.folders import find_files, is_hidden

VIDEO_EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")
_LIST_EXTENSIONS = (".txt", ".csv", ".parquet")
_KNOWN_COLUMNS = ("video_id", "uri", "subset", "split", "summary", "caption")
_STAT_THREADS = 32  # one stat per list entry waits on the network, not on the CPU

LISTING_SCHEMA: dict[str, pl.DataType] = {
    "video_id": pl.String(),
    "key": pl.String(),
    "uri": pl.String(),
    "size_bytes": pl.Int64(),
    "stamp": pl.String(),
    "hash_kind": pl.String(),
    "subset": pl.String(),
    "split": pl.String(),
    "metadata_json": pl.String(),
    "metadata_hash": pl.String(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig(Config):
    """Where the videos are. A store has one source: what it no longer lists is tombstoned (not deleted).

    Args:
        uri: folder, glob or list (.txt, .csv, .parquet).
        annotations_uri: an ActivityNet JSON; None for none.
        content_hash: "sampled" reads at most 1 MiB of a file and does not see a change in between that leaves the size
            as it was, "full" reads all of it. Only files that are new or whose stamp moved are read.
        extensions: which files of a folder are videos.
        video_id: what names a file of a folder or glob: "path" = its path below the folder without extension, so that
            files of equal names in two folders stay two videos; "stem" = its name without extension.
        replace: let this source take the place of the one that the store has followed: the videos of that one that are
            not here too are tombstoned. Refused otherwise.
    """

    uri: str
    annotations_uri: str | None = None
    content_hash: Literal["sampled", "full"] = "sampled"
    extensions: tuple[str, ...] = VIDEO_EXTENSIONS
    video_id: Literal["stem", "path"] = "path"
    replace: bool = False

    def __post_init__(self) -> None:
        require(
            bool(self.uri),
            what="source.uri",
            got=repr(self.uri),
            expected="a folder, glob or list",
            do="set source.uri",
        )
        good = all(extension.startswith(".") and extension == extension.lower() for extension in self.extensions)
        require(
            good,
            what="source.extensions",
            got=self.extensions,
            expected="lower-case endings with a dot",
            do="write e.g. ['.mp4']",
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the source before checks. `info` is fsspec's; None where there is no file, `failure` may say why."""

    video_id: str
    uri: str
    info: dict[str, Any] | None
    columns: dict[str, Any]
    failure: VideoError | None = None


@dataclass(frozen=True, slots=True)
class SourceListing:
    """The checked source.

    Args:
        frame: one row per video (`LISTING_SCHEMA`), sorted by id.
        rejected: failure rows (duplicate_id, bad_name, missing file), for `apply_snapshot`.
        num_collapsed: lines that are equal to an earlier one, and were left out.
        num_merged: lines that gave an earlier line's video one more caption.
        annotations: the parsed annotation file, if there is one; reconciliation: the ids that do not meet.
    """

    frame: pl.DataFrame
    rejected: list[dict[str, Any]]
    num_collapsed: int
    num_merged: int
    annotations: Annotations | None
    reconciliation: Reconciliation | None


def list_source(config: SourceConfig) -> SourceListing:
    """Return what the source holds now. Files are listed, not opened.

    Raises:
        UserError: source missing, empty, not permitted, a list without its columns, an unknown subset or split.
    """
    with storage.reachable("source.uri", config.uri):
        entries = _list_entries(config)
    annotations = load_annotations(config.annotations_uri)
    return build_listing(entries, annotations, config.content_hash, config.uri)


def load_annotations(uri: str | None) -> Annotations | None:
    """Return the annotations at a URI (None for None).

    Raises:
        UserError: no such file, no permission, or not in the ActivityNet layout.
    """
    if uri is None:
        return None
    try:
        with storage.reachable("annotations_uri", uri):
            content = storage.read_bytes(uri)
        return read_annotations(content.decode("utf-8"), origin=uri)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            what="annotations_uri",
            got=f"{uri} ({type(error).__name__})",
            expected="a readable ActivityNet JSON file",
            do="check the path and its permissions",
        ) from error


def build_listing(
    entries: Iterable[Entry], annotations: Annotations | None, hash_kind: str, origin: str
) -> SourceListing:
    """Return the listing of raw entries: rejects bad names, ambiguous ids and missing files, attaches the metadata."""
    by_id: dict[str, dict[tuple[str, str], Entry]] = {}
    rejected: list[dict[str, Any]] = []
    num_lines = num_collapsed = num_merged = 0
    for entry in entries:
        num_lines += 1
        if not _is_storable(entry):
            rejected.append(_rejection(entry, Reason.BAD_NAME, "the name is empty or not UTF-8; rename the file"))
            continue
        lines = by_id.setdefault(entry.video_id, {})
        line = (entry.uri, canonical_json(_plain(entry.columns)) if entry.columns else "")
        num_collapsed += line in lines
        lines.setdefault(line, entry)
    rows = []
    for _, lines in sorted(by_id.items()):
        same_id = list(lines.values())
        if (ambiguity := _ambiguity(same_id)) is not None:
            rejected += [_rejection(entry, Reason.DUPLICATE_ID, ambiguity) for entry in same_id]
            continue
        num_merged += len(same_id) - 1
        if (failure := _missing(same_id[0])) is not None:
            rejected.append(_rejection(same_id[0], failure.reason, failure.message, failure.permanent))
        else:
            rows.append(_listing_row(same_id, annotations, hash_kind))
    if num_lines != len(rows) + len(rejected) + num_collapsed + num_merged:
        raise RuntimeError(
            f"row conservation: {num_lines} lines are not {len(rows)} videos + {len(rejected)} rejected "
            f"+ {num_collapsed} collapsed + {num_merged} merged"
        )
    if not rows:
        got = (
            f"{num_lines} entries, all rejected (e.g. {rejected[0]['uri']}: {rejected[0]['message']})"
            if rejected
            else "no videos"
        )
        raise UserError(
            what=f"source {origin}", got=got, expected="at least one video", do="check source.uri and source.extensions"
        )
    frame = pl.DataFrame(rows, schema=LISTING_SCHEMA, orient="row")
    reconciliation = reconcile(annotations, frame["video_id"]) if annotations else None
    return SourceListing(frame, rejected, num_collapsed, num_merged, annotations, reconciliation)


def list_folder_or_glob(uri: str, extensions: tuple[str, ...], video_id: Literal["stem", "path"]) -> list[Entry]:
    """Return the files with one of the extensions below a folder, or those that match a glob; hidden files are skipped.

    Links to files count as files; linked folders below the source are not entered (see `find_files`).

    Raises:
        UserError: no such folder, or no permission to list it or a folder below it.
    """
    root, found = find_files(uri)
    entries = []
    for name, info in sorted(found.items()):
        relative = name.removeprefix(root.rstrip("/") + "/") if name != root else os.path.basename(name)
        is_file = info is None or info["type"] == "file"
        if is_file and not is_hidden(relative, "") and name.lower().endswith(extensions):
            stem = os.path.splitext(relative if video_id == "path" else os.path.basename(name))[0]
            entries.append(Entry(stem, _full_uri(uri, name), info, {}))
    return entries


def stamp_of(info: dict[str, Any]) -> str:
    """Return the text that changes when a file changes: its etag, else its modification time."""
    for name in ("ETag", "etag", "md5Hash"):
        if info.get(name):
            return str(info[name]).strip('"')
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        if info.get(name) is not None:
            return str(info[name])
    return ""


def file_stamp(uri: str) -> tuple[int, str]:
    """Return size in bytes and stamp (as in a listing) of a file as it is now.

    Raises:
        OSError: it is gone or cannot be looked at.
    """
    info = storage.info(uri)
    return int(info["size"]), stamp_of(info)


def _list_entries(config: SourceConfig) -> list[Entry]:
    uri = storage.absolute_uri(config.uri)
    if uri.lower().endswith(_LIST_EXTENSIONS) and (not glob.has_magic(uri) or storage.exists(uri)):
        return _list_file(uri)  # a list may be called "videos [v2].csv"
    entries = list_folder_or_glob(uri, config.extensions, config.video_id)
    if not entries:
        expected = f"files ending in {', '.join(config.extensions)}"
        raise UserError(
            what="source.uri",
            got=f"{uri}, which has no such file",
            expected=expected,
            do="check source.uri and source.extensions",
        )
    return entries


def _list_file(uri: str) -> list[Entry]:
    try:
        if not storage.exists(uri):
            raise UserError(what="source.uri", got=uri, expected="an existing list", do="check the path")
        rows = _read_list(uri)
    except PermissionError as error:
        raise UserError(
            what="source.uri", got=f"{uri} without permission", expected="a readable list", do="change its permissions"
        ) from error
    if not rows:
        raise UserError(
            what="source.uri", got=f"{uri}, which is empty", expected="at least one video", do="add lines to the list"
        )
    base = uri.rpartition("/")[0]
    uris = [_absolute_in(base, row["uri"]) for row in rows]
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        infos = list(pool.map(_info, uris))
    columns = ({name: value for name, value in row.items() if name not in ("video_id", "uri")} for row in rows)
    return [
        Entry(row["video_id"], full, info, rest, failure)
        for row, full, (info, failure), rest in zip(rows, uris, infos, columns, strict=True)
    ]


def _read_list(uri: str) -> list[dict[str, Any]]:
    with storage.local_copy(uri) as path:
        if uri.lower().endswith(".txt"):
            lines = (line.strip() for line in _text(path, uri).splitlines())
            return [{"video_id": _stem(line), "uri": line} for line in lines if line and not line.startswith("#")]
        try:
            # Every csv column is read as text: an id like 007 must keep its zeros.
            frame = (
                pl.read_csv(path, infer_schema_length=0, glob=False)
                if uri.lower().endswith(".csv")
                else pl.read_parquet(path, glob=False)
            )
        except pl.exceptions.NoDataError:
            return []
        except pl.exceptions.PolarsError as error:
            raise UserError(
                what=uri, got=str(error), expected="a readable csv or parquet file", do="mend the file"
            ) from error
    for name in ("video_id", "uri"):
        if name not in frame.columns:
            raise UserError(
                what=f"list {uri}",
                got=f"the columns {', '.join(frame.columns)}",
                expected=f"a column '{name}'",
                do="add it",
            )
        if frame[name].null_count():
            raise UserError(
                what=f"list {uri}, column '{name}'",
                got=f"{frame[name].null_count()} empty cells",
                expected="a value in each row",
                do="fill them",
            )
    return frame.with_columns(pl.col("video_id", "uri").cast(pl.String)).to_dicts()


def _text(path: Path, uri: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # editors on Windows put a mark before the first line
    except UnicodeDecodeError as error:
        do = "save it as UTF-8 (iconv -f latin1 -t utf-8)"
        raise UserError(what=f"list {uri}", got=str(error), expected="UTF-8 text", do=do) from error


def _info(uri: str) -> tuple[dict[str, Any] | None, VideoError | None]:
    """Return the file's description, or why there is none: one odd line never ends the job."""
    try:
        info = storage.info(uri)
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name; a UserError: a scheme without a driver
        for_good = isinstance(error, PermissionError | ValueError) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP)
        reason = Reason.STORAGE_PERMANENT if for_good else Reason.STORAGE_TRANSIENT
        return None, VideoError(reason, str(error), permanent=for_good)
    except Exception as error:
        if storage.is_local(uri):
            raise
        message = f"cannot reach {uri}: {type(error).__name__}: {error}"
        return None, VideoError(Reason.STORAGE_TRANSIENT, message, permanent=False)
    return (info if info["type"] == "file" else None), None


def _ambiguity(same_id: list[Entry]) -> str | None:
    """Return why the lines of one id are not one video: several files, or columns other than captions that differ."""
    if len(same_id) == 1:
        return None
    video_id, uris = same_id[0].video_id, sorted({entry.uri for entry in same_id})
    if len(uris) > 1:
        return f"{len(uris)} files have the id '{video_id}': " + ", ".join(uris[:5])
    first, *others = [_plain(entry.columns) for entry in same_id]
    names = [name for name in first if name != "caption" and any(other[name] != first[name] for other in others)]
    if not names:
        return None
    return f"{len(same_id)} lines give '{video_id}' different values of {', '.join(names)}; leave one of them"


def _missing(entry: Entry) -> VideoError | None:
    if entry.failure is not None:
        return entry.failure
    if entry.info is None:
        return VideoError(Reason.STORAGE_PERMANENT, "no such file")
    if entry.info.get("size") is None:
        return VideoError(Reason.STORAGE_PERMANENT, "its storage does not say how long it is; copy it to another")
    return None


def _listing_row(same_id: list[Entry], annotations: Annotations | None, hash_kind: str) -> tuple[Any, ...]:
    entry, *others = same_id
    info = entry.info or {}
    metadata = _metadata(entry, annotations)
    known = metadata["captions"]
    for other in others:
        known += [caption for caption in _metadata(other, None)["captions"] if caption not in known]
    text = canonical_json(metadata)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    values = (entry.video_id, video_key(entry.video_id), entry.uri, int(info["size"]), stamp_of(info), hash_kind)
    return (*values, metadata["subset"], metadata["split"], text, digest)


def _metadata(entry: Entry, annotations: Annotations | None) -> dict[str, Any]:
    found = (annotations.find(entry.video_id) if annotations else None) or VideoAnnotation()
    columns = _plain(entry.columns)
    for name in ("subset", "split", "summary", "caption"):
        if name in columns and not isinstance(columns[name], str | None):
            what = f"{name} of video '{entry.video_id}'"
            raise UserError(what=what, got=columns[name], expected="a text", do="make the list's column one of texts")
    split, subset = columns.get("split"), columns.get("subset") or found.subset
    if split is not None and split not in SPLITS:
        raise UserError(
            what=f"split of video '{entry.video_id}'",
            got=split,
            expected=f"one of {', '.join(SPLITS)}",
            do="correct the list",
        )
    if subset is not None:
        assign_split(entry.video_id, subset, SplitConfig())  # an unknown one is refused now, not after the extraction
    caption = columns.get("caption")
    metadata = {
        "subset": subset,
        "split": split,
        "annotations": found.annotations,
        "captions": found.captions + ([{"text": caption, "segment": None}] if caption else []),
        "summary": columns.get("summary") or found.summary,
        "columns": {name: value for name, value in columns.items() if name not in _KNOWN_COLUMNS and value is not None},
    }
    # Only where there are any: the metadata of all other videos, and their hashes, stay what they were.
    return metadata | ({"summaries": found.summaries} if found.summaries else {})


def _plain(columns: dict[str, Any]) -> dict[str, Any]:
    """Dates and other values that JSON lacks become text, NaN (pandas' empty cell) becomes None."""
    if not columns:  # every file of a folder: 100,000 of them are listed at each start
        return {}
    text = json.dumps(columns, default=str)
    plain: dict[str, Any] = json.loads(text, parse_constant=lambda name: None if name == "NaN" else name)
    return plain


def _is_storable(entry: Entry) -> bool:
    try:
        return bool(entry.video_id and video_key(entry.video_id) and entry.uri.encode("utf-8"))
    except ValueError:
        return False


def _rejection(entry: Entry, reason: Reason, message: str, permanent: bool = True) -> dict[str, Any]:
    clean: Callable[[str], str] = lambda text: text.encode("utf-8", "backslashreplace").decode("utf-8")  # noqa: E731
    return {
        "video_id": clean(entry.video_id),
        "uri": clean(entry.uri),
        "stage": "list",
        "reason": str(reason),
        "message": message,
        "permanent": permanent,
    }


def _absolute_in(base: str, uri: str) -> str:
    if "://" in uri or os.path.isabs(os.path.expanduser(uri)):
        return storage.absolute_uri(uri)
    full = storage.join(base, uri)
    return storage.absolute_uri(full) if storage.is_local(full) else full


def _full_uri(source_uri: str, path: str) -> str:
    return path if storage.is_local(source_uri) else str(storage.filesystem(source_uri)[0].unstrip_protocol(path))


def _stem(uri: str) -> str:
    return os.path.splitext(os.path.basename(uri))[0]
