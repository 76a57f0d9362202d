from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipelines.training.hiervl.samples import ChildSample, Draw, LevelReader, map_tensors
from pipelines.training.hiervl.system import HierVLSystem
from pipelines.training.job import TrainJob
from pipelines.training.registry import open_system
from pipelines.training.system import RankContext


@pytest.fixture
def reader(make_job: Callable[..., TrainJob]) -> LevelReader:
    system = open_system(make_job(), RankContext())
    assert isinstance(system, HierVLSystem)
    return system.train


def test_a_clips_frames_are_rows_inside_its_segment(reader: LevelReader) -> None:
    longest = max(reader.child_samples(), key=lambda each: len(reader.features.video(each.video).times_s))
    sample = longest._replace(caption=1)
    levels = reader.levels.videos[reader.keys[sample.video]]
    rows = reader.features.video(sample.video)
    span = levels.captions[1].span_s
    inside = (rows.times_s < span[1]) & (rows.times_s + levels.row_s > span[0])
    seen = set()
    for epoch in range(12):
        part = reader.child([sample], Draw(0, epoch))
        for frame in part.batch.clip_BTI[0].numpy():
            (place,) = np.flatnonzero((rows.features_TI == frame).all(1))
            assert inside[place]
            seen.add(int(place))
    assert len(seen) > 2  # other frames in other epochs
    assert reader.child([sample], None).batch.clip_BTI.equal(reader.child([sample], None).batch.clip_BTI)


def test_texts_are_those_of_the_caption_and_equal_ones_have_one_group(reader: LevelReader) -> None:
    samples = reader.child_samples()
    part = reader.child(samples, None)
    texts = reader.texts
    for i, sample in enumerate(samples):
        row = texts.texts_of[reader.keys[sample.video]][sample.caption]
        np.testing.assert_array_equal(part.batch.caption_BX[i].numpy(), texts.features_NX[row])
        assert int(part.caption_B[i]) == texts.group_N[row]
    assert len(set(part.caption_B.tolist())) < len(samples)
    tagged = [bool(reader.levels.videos[reader.keys[each.video]].captions[each.caption].verbs) for each in samples]
    assert part.verbs_BA.any(1).tolist() == part.nouns_BO.any(1).tolist() == tagged and any(tagged)


def test_the_flat_baseline_adds_each_summary_with_a_short_clip(reader: LevelReader) -> None:
    more = set(reader.child_samples(with_summaries=True)) - set(reader.child_samples())
    assert {each.video for each in more} == set(reader.parent_samples())
    sample = sorted(more)[0]
    assert sample.caption == len(reader.levels.videos[reader.keys[sample.video]].captions)
    part = reader.child([sample], Draw(0, 0))
    summary = reader.texts.texts_of[reader.keys[sample.video]][-1]
    np.testing.assert_array_equal(part.batch.caption_BX[0].numpy(), reader.texts.features_NX[summary])


def test_a_parent_sample_has_clips_captions_and_a_summary(reader: LevelReader) -> None:
    part = reader.parent(reader.parent_samples(), Draw(0, 0))
    V = len(part.keys)
    assert part.batch.clips_VCTI.shape == (V, 4, 2, 14) and part.batch.captions_VCX.shape == (V, 4, 8)
    counts = [len(reader.levels.videos[key].captions) for key in part.keys]
    assert part.batch.caption_mask_VC.sum(1).tolist() == counts and {0, 3} == set(counts)
    assert part.has_captions_V.tolist() == [count > 0 for count in counts]
    own = [reader.levels.videos[key].own_summary for key in part.keys]
    assert part.own_summary_V.tolist() == own and {True, False} == set(own)
    for i, key in enumerate(part.keys):
        ids = reader.texts.texts_of[key]
        np.testing.assert_array_equal(part.batch.summary_VX[i].numpy(), reader.texts.features_NX[ids[-1]])
        assert tuple(part.span_s_V2[i].tolist()) == pytest.approx(reader.levels.videos[key].span_s)


def test_a_clip_without_rows_is_padding(reader: LevelReader, monkeypatch: pytest.MonkeyPatch) -> None:
    key = reader.keys[0]
    video = reader.levels.videos[key]
    late = video.captions[0]._replace(start_s=1e6, end_s=1e6 + 1)
    monkeypatch.setitem(reader.levels.videos, key, video._replace(captions=(late, *video.captions[1:])))  # type: ignore[arg-type]
    part = reader.child([ChildSample(0, 0), ChildSample(0, 1)], None)
    assert part.batch.frame_mask_BT.any(1).tolist() == [False, True] and not part.batch.clip_BTI[0].any()


def test_every_tensor_of_a_part_is_mapped(reader: LevelReader) -> None:
    part = map_tensors(reader.parent(reader.parent_samples()[:2], None), torch.zeros_like)
    assert not part.summary_V.any() and not part.batch.clips_VCTI.any() and len(part.keys) == 2
