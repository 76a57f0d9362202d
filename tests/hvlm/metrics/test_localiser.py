"""The fitted localiser: it finds planted segments, better than chance and floor; the seed decides; dev chooses."""

import numpy as np
import pytest
import torch

from hvlm.errors import UserError
from hvlm.metrics.localisation import evaluate_detection
from hvlm.metrics.localiser import LocaliserConfig, LocaliserFit, LocaliserVideo, fit_localiser
from hvlm.metrics.proposals import (
    ProposalConfig,
    VideoSegments,
    random_segments,
    segments_of_videos,
    whole_video_segments,
)
from hvlm.models.localisation_head import LocalisationHeadConfig
from hvlm.models.pyramid import AttentionPyramid, PyramidConfig

torch.set_num_threads(1)
CONFIG = LocaliserConfig(head=LocalisationHeadConfig(hidden=16, dropout=0.0), num_steps=120, lr=1e-2, batch_size=8)
PYRAMID = AttentionPyramid(PyramidConfig(), 6)


def _videos(count: int, seed: int) -> list[LocaliserVideo]:
    """Two of three actions each, of 4 to 14 rows of half a second, as a direction plus noise."""
    random, videos = np.random.default_rng(seed), []
    for index in range(count):
        length = int(random.integers(36, 48))
        rows, spans, labels = 0.3 * random.normal(size=(length, 6)), [], []
        for label, start in zip(random.permutation(3)[:2].tolist(), (2, 20), strict=True):
            first = start + int(random.integers(3))
            last = first + int(random.integers(4, 15))
            rows[first:last, label] += 2.0
            spans.append((first / 2, last / 2))
            labels.append(label)
        cells = np.stack([np.arange(length), np.arange(1, length + 1)], axis=1) / 2
        videos.append(
            LocaliserVideo(
                key=f"{seed}-{index:03d}",
                rows_TD=rows.astype(np.float32),
                cell_T2=cells,
                duration_s=length / 2,
                span_S2=np.array(spans),
                label_S=np.array(labels),
            )
        )
    return videos


def _fit(config=CONFIG, seed=0, train=None):
    fit = LocaliserFit(PYRAMID, 3, config, ProposalConfig(), seed)
    return fit_localiser(train or _videos(32, 1), _videos(8, 2), fit)


@pytest.fixture(scope="module")
def fitted():
    return _fit()


def _average_map(found: list[tuple[str, VideoSegments]], videos) -> float:
    truth = [(v.key, VideoSegments(v.label_S, v.span_S2, np.ones(len(v.label_S)))) for v in videos]
    return evaluate_detection(segments_of_videos(found), segments_of_videos(truth)).average_map()


def test_planted_segments_are_found(fitted):
    videos, random = _videos(16, 3), np.random.default_rng(0)
    found = _average_map([(v.key, fitted.find(v, PYRAMID, ProposalConfig())) for v in videos], videos)
    whole = _average_map([(v.key, whole_video_segments(np.ones(3), v.duration_s)) for v in videos], videos)
    chance = _average_map([(v.key, random_segments(3, v.duration_s, 20, random)) for v in videos], videos)
    assert found > 0.5
    assert found > 5 * max(whole, chance)


def test_segments_lie_in_the_video_best_first(fitted):
    video = _videos(1, 3)[0]
    assert len(fitted.find(video, PYRAMID, ProposalConfig(max_per_video=7)).label_N) == 7
    found = fitted.find(video, PYRAMID, ProposalConfig())  # faint ones too: those reach beyond the ends
    assert (np.diff(found.score_N) <= 0).all()
    assert (found.span_N2[:, 0] >= 0).all()
    assert (found.span_N2[:, 1] <= video.duration_s).all()
    assert (found.span_N2[:, 1] > found.span_N2[:, 0]).all()


def test_the_seed_decides_and_the_callers_random_numbers_go_on():
    short = LocaliserConfig(head=CONFIG.head, num_steps=4, num_checks=2, batch_size=4)
    torch.manual_seed(5)
    first = _fit(short)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    second, other = _fit(short), _fit(short, seed=1)
    states = [each.head.state_dict() for each in (first, second, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert first.dev.keys() == {2, 4}


def test_dev_chooses_the_step(monkeypatch):
    """The second of three checks is the best one, the third only as good."""
    scores, states = iter([0.1, 0.7, 0.7]), []

    def measured(current, videos, fit):
        states.append({name: value.clone() for name, value in current.head.state_dict().items()})
        return next(scores)

    monkeypatch.setattr("hvlm.metrics.localiser._average_map", measured)
    found = _fit(LocaliserConfig(head=CONFIG.head, num_steps=6, num_checks=3, batch_size=4))
    assert (found.step, found.dev) == (4, {2: 0.1, 4: 0.7, 6: 0.7})
    assert all(torch.equal(value, states[1][name]) for name, value in found.head.state_dict().items())
    assert not found.head.training


def test_the_pyramid_stays_as_it_is_and_scales_do_not_matter(fitted):
    assert PYRAMID.scores_LD.grad is None
    assert not PYRAMID.scores_LD.any()
    # rows of another scale and offset are standardised by the training rows
    config = LocaliserConfig(head=CONFIG.head, num_steps=3, num_checks=1, batch_size=4)
    moved = [_moved(video) for video in _videos(8, 1)]
    one, other = _fit(config, train=_videos(8, 1)), _fit(config, train=moved)
    video = _videos(1, 3)[0]
    grids = one.grid([video], PYRAMID), other.grid([_moved(video)], PYRAMID)
    torch.testing.assert_close(grids[0].nodes_BPD, grids[1].nodes_BPD, rtol=1e-3, atol=1e-3)


def _moved(video: LocaliserVideo) -> LocaliserVideo:
    rows = (1000 * video.rows_TD + 30).astype(np.float32)
    return LocaliserVideo(
        key=video.key,
        rows_TD=rows,
        cell_T2=video.cell_T2,
        duration_s=video.duration_s,
        span_S2=video.span_S2,
        label_S=video.label_S,
    )


def test_nothing_to_fit_on():
    fit = LocaliserFit(PYRAMID, 3, CONFIG, ProposalConfig(), 0)
    with pytest.raises(ValueError, match="needs videos: 0"):
        fit_localiser([], _videos(1, 0), fit)
    bare = LocaliserVideo(key="a", rows_TD=np.zeros((3, 6), np.float32), cell_T2=np.zeros((3, 2)), duration_s=1.0)
    with pytest.raises(ValueError, match="with true segments"):
        fit_localiser(_videos(1, 0), [bare], fit)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_steps": 0},
        {"batch_size": 0},
        {"num_checks": 0},
        {"max_candidates": 0},
        {"lr": 0.0},
        {"weight_decay": -1.0},
    ],
)
def test_config_ranges(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        LocaliserConfig(**wrong)
