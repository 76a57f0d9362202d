from pathlib import Path

import pytest

from hvlm.data.samples import SampleMeta
from pipelines.store.manifest import open_manifest
from pipelines.training.hiervl.levels import Levels, read_levels, read_video_levels, write_levels
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
    assert levels.has_summary and levels.own_summary and levels.row_s == max(meta.stride_s, meta.clip_s)


def test_without_a_summary_the_captions_are_the_paragraph(metas: dict[str, SampleMeta]) -> None:
    levels, texts = read_video_levels(metas["video003"])
    assert not levels.own_summary
    assert levels.has_summary and texts[-1] == "someone can throw 3 someone can throw 4 someone can throw 5"


def test_captions_without_words_are_left_out_and_a_video_may_have_nothing(metas: dict[str, SampleMeta]) -> None:
    levels, texts = read_video_levels(metas["video015"])
    assert not levels.has_summary and not levels.captions and not texts
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
    assert (levels.num_verbs, levels.num_nouns) == (2, 4) and Levels({}).num_verbs == 0
    no_captions, no_summary = levels.without(levels.videos)
    assert no_captions == [f"video{i:03d}" for i in (7, 15, 23, 31, 39)] and no_summary == ["video015", "video039"]
