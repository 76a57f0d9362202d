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


@pytest.fixture
def of_parts(make_job: Callable[..., TrainJob], parts_store: str) -> LevelReader:
    system = open_system(make_job(store_uri=parts_store), RankContext())
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
    assert {each.video for each in more} == {each.video for each in reader.parent_samples()}
    sample = sorted(more)[0]
    assert sample.caption == len(reader.levels.videos[reader.keys[sample.video]].captions)
    part = reader.child([sample], Draw(0, 0))
    summary = reader.texts.texts_of[reader.keys[sample.video]][-1]
    np.testing.assert_array_equal(part.batch.caption_BX[0].numpy(), reader.texts.features_NX[summary])


def test_the_flat_baselines_sample_takes_a_clip_inside_the_summarys_segment(of_parts: LevelReader) -> None:
    """Not one that lies before it; its tags are the summary's own."""
    flat = sorted(set(of_parts.child_samples(with_summaries=True)) - set(of_parts.child_samples()))
    assert len(flat) == len(of_parts.parent_samples())
    starts = set()
    for sample in flat:
        video = of_parts.levels.videos[of_parts.keys[sample.video]]
        summary = video.summaries[sample.caption - len(video.captions)]
        for epoch in range(5):
            part = of_parts.child([sample], Draw(0, epoch))
            rows_s = frames_s(of_parts, sample.video, part.batch.clip_BTI[0])
            assert all(summary.start_s < start_s + video.row_s and start_s < summary.end_s for start_s in rows_s)
            assert max(rows_s) - min(rows_s) <= 3.0 + video.row_s  # a short clip, not the segment
            starts.add((sample, min(rows_s)))
            assert part.verbs_BA[0].nonzero().flatten().tolist() == list(summary.verbs)
    assert len(starts) > 2 * len(flat)  # drawn anew each time


def frames_s(reader: LevelReader, video: int, frames_TI: torch.Tensor) -> list[float]:
    """When the frames are in their video."""
    rows = reader.features.video(video)
    return [float(rows.times_s[np.flatnonzero((rows.features_TI == frame).all(1))[0]]) for frame in frames_TI.numpy()]


def test_a_summary_of_a_part_takes_clips_and_captions_of_that_part_alone(of_parts: LevelReader) -> None:
    samples = of_parts.parent_samples()
    part = of_parts.parent(samples, Draw(0, 0))
    assert len(set(part.keys)) == len(samples) > 2 * len(of_parts.keys)
    seen = set()
    for i, sample in enumerate(samples):
        key = of_parts.keys[sample.video]
        video, ids = of_parts.levels.videos[key], of_parts.texts.texts_of[key]
        summary = video.summaries[sample.summary]
        assert part.keys[i] == (key if sample.summary == 0 else f"{key}#summary{sample.summary}")
        for frames_TI in part.batch.clips_VCTI[i]:
            for start_s in frames_s(of_parts, sample.video, frames_TI):
                assert summary.start_s < start_s + video.row_s and start_s < summary.end_s
        covered = of_parts.texts.features_NX[ids[list(summary.captions)]]
        real = part.batch.captions_VCX[i][part.batch.caption_mask_VC[i]].numpy()
        assert len(real) == min(4, len(covered)) and all((covered == vector).all(1).any() for vector in real)
        assert bool(part.has_captions_V[i]) == bool(summary.captions)
        told = of_parts.texts.features_NX[ids[len(video.captions) + sample.summary]]
        np.testing.assert_array_equal(part.batch.summary_VX[i].numpy(), told)
        assert tuple(part.span_s_V2[i].tolist()) == pytest.approx(summary.span_s)
        assert part.video_V[i] == sample.video and bool(part.own_summary_V[i])
        assert part.verbs_VA[i].nonzero().flatten().tolist() == sorted(set(summary.verbs))
        assert part.nouns_VO[i].nonzero().flatten().tolist() == sorted(set(summary.nouns))
        seen.add(len(summary.captions))
    assert seen == {0, 3, 4, 6, 12}


def test_a_parent_sample_has_clips_captions_and_a_summary(reader: LevelReader) -> None:
    part = reader.parent(reader.parent_samples(), Draw(0, 0))
    V = len(part.keys)
    assert part.batch.clips_VCTI.shape == (V, 4, 2, 14) and part.batch.captions_VCX.shape == (V, 4, 8)
    counts = [len(reader.levels.videos[key].captions) for key in part.keys]
    assert part.batch.caption_mask_VC.sum(1).tolist() == counts and {0, 3} == set(counts)
    assert part.has_captions_V.tolist() == [count > 0 for count in counts]
    own = [reader.levels.videos[key].summaries[0].own for key in part.keys]
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
