import json
from pathlib import Path
from typing import Any

import pytest

from hvlm.data.activitynet import VideoAnnotation
from hvlm.data.readers.egoclip import ClipRow, write_egoclip
from hvlm.errors import UserError
from pipelines.store.annotations import AnnotationPartConfig, AnnotationsConfig, make_annotations
from pipelines.store.sources import SourceConfig, load_annotations

CLIP = ClipRow("a", (1.0, 2.0), "C cuts", (4,), (1, 2), "one", duration_s=60.0)
SUMMARY = ClipRow("a", (0.0, 30.0), "C cooks", annotator="one", duration_s=60.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    late = CLIP._replace(span_s=(70.0, 80.0))
    (tmp_path / "clips.csv").write_text(write_egoclip([CLIP, late, CLIP._replace(text="C stirs", annotator="two")]))
    (tmp_path / "summaries.csv").write_text(write_egoclip([SUMMARY, SUMMARY._replace(video_id="lost")]))
    hierarchy = {"summary_start": 0.0, "summary_end": 30.0, "clip_start": [1.0, 3.0], "clip_end": [2.0, 4.0]}
    hierarchy |= {"clip_text": ["C cuts", "C rests"], "tag_verb": ["[4]", "[]"], "tag_noun": ["[1, 2]", "[]"]}
    # The table has the sentence of two videos, of which the file cannot say which it means.
    (tmp_path / "hierarchy.json").write_text(json.dumps({"C cooks": hierarchy}))
    (tmp_path / "one.csv").write_text(write_egoclip([SUMMARY]))
    for name, sentence in (("val_1", "A kite rises."), ("val_2", "It falls.")):
        told = {"duration": 20.0, "timestamps": [[0.5, 6.0]], "sentences": [sentence]}
        (tmp_path / f"{name}.json").write_text(json.dumps({"v_abcdefghijk": told}))
    (tmp_path / "videos").mkdir()
    for name in ("a", "abcdefghijk", "extra"):
        (tmp_path / f"videos/{name}.mp4").write_text(name)
    return tmp_path


def config(folder: Path, *parts: dict[str, Any], **changes: Any) -> AnnotationsConfig:
    read = tuple(
        AnnotationPartConfig(**{k: f"{folder}/{v}" if k.endswith("_uri") else v for k, v in part.items()})
        for part in parts
    )
    return AnnotationsConfig(output_uri=f"{folder}/out.json", parts=read, **changes)


TABLES = {"subset": "training", "clips_uri": "clips.csv", "summaries_uri": "summaries.csv"}
CAPTIONS = [
    {"subset": "validation", "captions_uri": f"{name}.json", "captions_pass": name} for name in ("val_1", "val_2")
]


def test_tables_and_captions_become_one_file_that_says_what_is_missing(folder: Path) -> None:
    wanted = config(folder, TABLES, *CAPTIONS, source=SourceConfig(uri=f"{folder}/videos"))
    report = make_annotations(wanted)
    assert (report.num_videos, report.num_captions, report.num_summaries) == (3, 4, 2)
    (problem,) = report.problems
    assert problem.startswith(f"{folder}/clips.csv, line 3 (a): ") and "starts beyond the duration" in problem
    assert report.bare == ["lost: 'C cooks' (one)"]
    assert report.reconciliation is not None
    assert report.reconciliation.without_annotation == ["extra"] and report.reconciliation.without_video == ["lost"]
    written = load_annotations(wanted.output_uri)
    assert written is not None and not written.problems
    assert written.videos["a"] == VideoAnnotation(
        subset="training",
        duration_s=60.0,
        captions=[
            {"text": "C cuts", "segment": [1.0, 2.0], "verbs": [4], "nouns": [1, 2], "pass": "one"},
            {"text": "C stirs", "segment": [1.0, 2.0], "verbs": [4], "nouns": [1, 2], "pass": "two"},
        ],
        summaries=[{"text": "C cooks", "segment": [0.0, 30.0], "pass": "one"}],
    )
    kite = written.videos["v_abcdefghijk"]
    assert kite.subset == "validation" and kite.summary is None
    assert [(item["text"], item["pass"]) for item in kite.captions] == [
        ("A kite rises.", "val_1"),
        ("It falls.", "val_2"),
    ]
    first = Path(wanted.output_uri).read_bytes()
    make_annotations(wanted)
    assert Path(wanted.output_uri).read_bytes() == first


def test_the_hierarchys_json_stands_in_for_the_table_of_clips_and_knows_no_pass(folder: Path) -> None:
    wanted = config(folder, {"summaries_uri": "one.csv", "hierarchy_uri": "hierarchy.json"})
    report = make_annotations(wanted)
    written = load_annotations(wanted.output_uri)
    assert written is not None and report.bare == [] and report.reconciliation is None
    video = written.videos["a"]
    assert [item["text"] for item in video.captions] == ["C cuts", "C rests"] and video.subset is None
    assert not any("pass" in item for item in video.captions + video.summaries)
    both = make_annotations(config(folder, {"summaries_uri": "summaries.csv", "hierarchy_uri": "hierarchy.json"}))
    assert both.num_captions == 0 and "of 2 videos" in both.problems[0] and len(both.bare) == 2


def test_a_video_of_two_subsets_is_refused_and_nothing_is_written(folder: Path) -> None:
    wanted = config(folder, TABLES, {"subset": "validation", "summaries_uri": "one.csv"})
    with pytest.raises(UserError, match="the training and the validation rows: got 1: a"):
        make_annotations(wanted)
    assert not Path(wanted.output_uri).exists()


def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv \(FileNotFoundError\)"):
        make_annotations(config(folder, {"clips_uri": "none.csv"}))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"subset": "training"}, "a part without a file"),
        ({"clips_uri": "a", "summaries_uri": "b", "hierarchy_uri": "c"}, "beside clips_uri"),
        ({"captions_uri": "a", "hierarchy_uri": "c"}, "without summaries_uri"),
        ({"clips_uri": "a", "captions_pass": "one"}, "'one' without captions_uri"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(part: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AnnotationPartConfig(**part)


def test_no_parts_and_a_source_with_annotations_are_refused() -> None:
    with pytest.raises(UserError, match="parts: got none"):
        AnnotationsConfig(output_uri="out.json", parts=())
    with pytest.raises(UserError, match=r"source\.annotations_uri: got gt\.json"):
        AnnotationsConfig(
            output_uri="out.json",
            parts=(AnnotationPartConfig(clips_uri="a"),),
            source=SourceConfig(uri="videos", annotations_uri="gt.json"),
        )
