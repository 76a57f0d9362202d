import json
from dataclasses import replace
from pathlib import Path

import pytest

from hvlm.data.samples import SampleMeta
from pipelines.store.manifest import open_manifest
from pipelines.training.hiervl.levels import Levels, Summary, read_levels, read_video_levels, write_levels
from pipelines.training.text import read_metas


@pytest.fixture(scope="module")
def metas(store: str) -> dict[str, SampleMeta]:
    splits = ("train", "dev", "val", "test")
    return {meta.video_id: meta for meta in read_metas(open_manifest(store), splits)}


def test_captions_come_in_the_order_of_time_and_the_summary_last(metas: dict[str, SampleMeta]) -> None:
    meta = metas["video001"]
    meta.captions[:] = meta.captions[::-1]
    levels, texts = read_video_levels(meta)
    assert texts == ["someone can run 1", "someone can run 2", "someone can run 3", "they run all day, said 1"]
    starts = [caption.start_s for caption in levels.captions]
    assert starts == sorted(starts) and levels.captions[0].verbs == (1,) and levels.captions[0].nouns == (3,)
    assert levels.summaries == (Summary(*levels.span_s, (0, 1, 2)),) and levels.whole_summary == 0
    assert levels.row_s == max(meta.stride_s, meta.clip_s)


def test_without_a_summary_the_captions_are_the_paragraph(metas: dict[str, SampleMeta]) -> None:
    levels, texts = read_video_levels(metas["video003"])
    assert levels.summaries == (Summary(*levels.span_s, (0, 1, 2), own=False),) and levels.whole_summary == 0
    assert texts[-1] == "someone can throw 3 someone can throw 4 someone can throw 5"
    two = [item | {"pass": "b"} for item in metas["video003"].captions]
    levels, texts = read_video_levels(replace(metas["video003"], captions=[*metas["video003"].captions, *two]))
    assert [each.captions for each in levels.summaries] == [(0, 2, 4), (1, 3, 5)]
    assert texts[-2:] == ["someone can throw 3 someone can throw 4 someone can throw 5"] * 2


def test_a_summary_of_a_part_covers_the_captions_of_its_pass_inside_it(parts_store: str) -> None:
    metas = {meta.video_id: meta for meta in read_metas(open_manifest(parts_store), ("train", "dev", "val", "test"))}
    levels, texts = read_video_levels(metas["video005"])
    names = [[texts[i].removeprefix("someone can run ") for i in each.captions] for each in levels.summaries]
    assert names == [["one 0", "one 1", "one 2"], ["two 2", "two 3", "two 4", "two 5"]]
    assert texts[12:] == ["they run first, said 5", "they run last, said 5"] and levels.whole_summary is None
    sixth_s = metas["video005"].duration_s / 6
    spans = [edge for each in levels.summaries for edge in each.span_s]
    assert spans == pytest.approx([0, 3 * sixth_s, 2 * sixth_s, 6 * sixth_s])
    assert [(each.own, each.verbs) for each in levels.summaries] == [(True, (7,)), (True, ())]
    whole, whole_texts = read_video_levels(metas["video004"])
    assert whole.whole_summary == 0 and len(whole.summaries[0].captions) == 12 and len(whole.summaries) == 3
    assert whole_texts[12] == "they jump all day, said 4"
    bare = Levels({key: read_video_levels(metas[key])[0] for key in ("video005", "video006")})
    assert bare.bare_summaries(bare.videos) == ["video006#summary1"] and bare.num_verbs == 8
    named = replace(metas["video005"], summaries=[{"text": "a moment", "segment": [1.0, 1.0]}])
    assert [each.own for each in read_video_levels(named)[0].summaries] == [False, False]


def test_captions_without_words_are_left_out_and_a_video_may_have_nothing(metas: dict[str, SampleMeta]) -> None:
    levels, texts = read_video_levels(metas["video015"])
    assert not levels.summaries and not levels.captions and not texts
    meta = metas["video039"]
    meta.captions.append({"text": "  ", "segment": [0.0, 1.0]})
    assert read_video_levels(meta)[1] == []


def test_what_is_written_comes_back_with_the_lists_of_what_is_missing(
    metas: dict[str, SampleMeta], tmp_path: Path
) -> None:
    levels = Levels({meta.key: read_video_levels(meta)[0] for meta in metas.values()})
    uri = str(tmp_path / "levels.json")
    write_levels(uri, levels)
    assert read_levels(uri) == levels
    bare = json.loads(Path(uri).read_text())["summaries_without_captions"]
    assert bare == [f"video{i:03d}" for i in (7, 23, 31)]  # of five without captions, 15 and 39 have no summary
    assert (levels.num_verbs, levels.num_nouns) == (2, 4) and Levels({}).num_verbs == 0
    no_captions, no_summary = levels.without(levels.videos)
    assert no_captions == [f"video{i:03d}" for i in (7, 15, 23, 31, 39)] and no_summary == ["video015", "video039"]
