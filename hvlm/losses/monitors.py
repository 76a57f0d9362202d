"""Collapse monitors and alarms: what tells a model that learns from one that only looks smooth.

Temporal consistency (TC) is 1.0 for a collapsed model, so it is never read alone: beside it stand the spread of unit
vectors (near 0 after total collapse), the cosine of pairs that have no reason to be alike, and the effective rank
(near 1 after dimensional collapse).

Shapes: N videos, T frames, D width, V valid rows.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hvlm.config import Config, require
from hvlm.losses.batch import masked, unit


def collapse_monitors(rows_NTD: Tensor, mask_NT: Tensor, gap: int = 8, prefix: str = "") -> dict[str, float]:
    """Collapse figures over all valid rows; pair means are exact, not sampled. One host transfer.

    Args:
        rows_NTD: rows of the encoder or projector, (N, T, D); padded rows are ignored.
        mask_NT: bool.
        gap: rows of one video this far apart count as a random pair (8 rows).
        prefix: put before each name, e.g. `hidden/`.

    Returns:
        `temporal_consistency`: mean cosine of consecutive rows, all pairs alike. `unit_std`: sqrt(D) x mean deviation
        of unit vectors per channel, ideal 1. `within_video_unit_std`: the same around each video's mean, mean over
        videos of 2 rows or more. `effective_rank`: exp of the entropy of p = s^2 / sum s^2 of centred unit vectors.
        `cosine_same_video` (gap or more apart), `cosine_cross_video`, `random_pair_cosine` (both kinds pooled),
        `contrast_gap` = temporal_consistency − mean of cosine_same_video and cosine_cross_video (of the one that
        exists), as the evaluation calculates it; there "far apart" is in seconds, here in rows. nan where there is no
        pair.
    """
    with torch.no_grad():
        unit_NTD = unit(masked(rows_NTD, mask_NT))
        consistency, same, cross = _pair_cosines(unit_NTD, mask_NT, gap)
        values = {
            "temporal_consistency": consistency.mean(),
            **_spread(unit_NTD, mask_NT),
            "cosine_same_video": same.mean(),
            "cosine_cross_video": cross.mean(),
            "random_pair_cosine": _Pairs(same.total + cross.total, same.pairs + cross.pairs).mean(),
        }
        distant = torch.stack([values["cosine_same_video"], values["cosine_cross_video"]]).nanmean()
        values["contrast_gap"] = values["temporal_consistency"] - distant
        numbers = torch.stack([value.double() for value in values.values()]).tolist()
    return {prefix + name: number for name, number in zip(values, numbers, strict=True)}


class _Pairs(NamedTuple):
    """Sum of cosines over a kind of pairs, and how many there are."""

    total: Tensor
    pairs: Tensor

    def mean(self) -> Tensor:
        return torch.where(self.pairs > 0, self.total / self.pairs.clamp_min(1), float("nan"))


def _pair_cosines(unit_NTD: Tensor, mask_NT: Tensor, gap: int) -> tuple[_Pairs, _Pairs, _Pairs]:
    """Consecutive pairs; pairs of one video `gap` or more apart; pairs of different videos.

    A sum of cosines over all pairs of a set is |sum of its unit vectors|^2; near pairs are taken off one shift at a
    time (gap − 1 shifts, not T).
    """
    unit_NTD = unit_NTD.double()
    # A row of zeros has no direction, so it is in no pair.
    real_NT = mask_NT & (unit_NTD.square().sum(-1) > 0)
    sum_ND = unit_NTD.sum(1)
    count_N = real_NT.sum(1).double()
    same_total, same_count = sum_ND.square().sum() - count_N.sum(), (count_N * (count_N - 1)).sum()
    consecutive = _Pairs(torch.zeros_like(same_total), torch.zeros_like(same_total))
    for shift in range(1, min(gap, unit_NTD.shape[1])):
        pair_NP = real_NT[:, :-shift] & real_NT[:, shift:]
        total = ((unit_NTD[:, :-shift] * unit_NTD[:, shift:]).sum(-1) * pair_NP).sum()
        near = _Pairs(total, pair_NP.sum().double())
        if shift == 1:
            consecutive = near
        same_total, same_count = same_total - 2 * near.total, same_count - 2 * near.pairs
    cross_total = sum_ND.sum(0).square().sum() - sum_ND.square().sum()
    cross_count = count_N.sum().square() - count_N.square().sum()
    return consecutive, _Pairs(same_total, same_count), _Pairs(cross_total, cross_count)


def _spread(unit_NTD: Tensor, mask_NT: Tensor) -> dict[str, Tensor]:
    scale = math.sqrt(unit_NTD.shape[-1])
    rows_VD = unit_NTD[mask_NT].double()
    centred_VD = rows_VD - rows_VD.mean(0)
    gram_DD = centred_VD.T @ centred_VD
    length_N = mask_NT.sum(1).double()
    mean_ND = unit_NTD.double().sum(1) / length_N.clamp_min(1)[:, None]
    deviation_NTD = (unit_NTD - mean_ND[:, None]) * mask_NT[..., None]
    std_ND = (deviation_NTD.square().sum(1) / length_N.clamp_min(1)[:, None]).sqrt()
    long_N = length_N >= 2
    within = _Pairs((std_ND.mean(1) * long_N).sum(), long_N.sum().double()).mean()
    # Eigenvalues of the D x D covariance are the squared singular values of the (much taller) centred rows.
    # It refuses NaN, and a monitor must report NaN rather than end the run.
    finite = bool(torch.isfinite(gram_DD).all())
    power_D = torch.linalg.eigvalsh(gram_DD).clamp_min(0.0) if finite else torch.full_like(gram_DD[0], float("nan"))
    share_D = power_D / power_D.sum().clamp_min(1e-30)
    return {
        "unit_std": scale * centred_VD.square().mean(0).sqrt().mean(),
        "within_video_unit_std": scale * within,
        "effective_rank": (-torch.special.xlogy(share_D, share_D).sum()).exp(),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmConfig(Config):
    """Thresholds of the specification; `stop` says whether the trainer ends the run at an alarm."""

    min_unit_std: float = 0.1
    max_random_pair_cosine: float = 0.95
    min_effective_rank: float = 2.0
    evaluations: int = 3
    zero_gradient_steps: int = 10
    stop: bool = False

    def __post_init__(self) -> None:
        for name in ("evaluations", "zero_gradient_steps"):
            value = getattr(self, name)
            require(value >= 1, what=f"alarms.{name}", got=value, expected="1 or more", do=f"raise {name}")
        for name, least, most in (
            ("min_unit_std", 0.0, 1.0),
            ("max_random_pair_cosine", -1.0, 1.0),
            ("min_effective_rank", 0.0, math.inf),
        ):
            value = getattr(self, name)
            require(
                least <= value <= most,
                what=f"alarms.{name}",
                got=value,
                expected=f"from {least:g} to {most:g}",
                do="leave it out for the default",
            )


class Alarm(NamedTuple):
    """One alarm: `name`, the step, the value and the limit it broke, and a sentence for the log."""

    name: str
    step: int
    value: float
    limit: float
    message: str


class Alarms:
    """Counts how long a limit has been broken and raises each alarm once per episode.

    Args:
        config: limits and patience.
    """

    def __init__(self, config: AlarmConfig) -> None:
        self.config = config
        self._broken: dict[str, int] = {}

    def observe_step(self, step: int, loss: float, grad_norm: float) -> list[Alarm]:
        """Alarms of one optimizer step: `non_finite_loss` at once, `zero_gradient` after `zero_gradient_steps`."""
        cfg = self.config
        found = [
            self._count("non_finite_loss", not math.isfinite(loss), step, (loss, 0.0, 1)),
            self._count("zero_gradient", grad_norm == 0.0, step, (grad_norm, 0.0, cfg.zero_gradient_steps)),
        ]
        return [alarm for alarm in found if alarm is not None]

    def observe_evaluation(self, step: int, monitors: dict[str, float], prefix: str = "") -> list[Alarm]:
        """Alarms of one evaluation: `unit_std`, `random_pair_cosine`, `effective_rank` after `evaluations` in a row.

        Args:
            step: optimizer step.
            monitors: of `collapse_monitors`. A value that is not finite counts as broken, but a random_pair_cosine of
                nan beside a finite unit_std says that there was no pair: it neither counts nor resets.
            prefix: the one given to `collapse_monitors`.
        """
        cfg = self.config
        spread, cosine = monitors[prefix + "unit_std"], monitors[prefix + "random_pair_cosine"]
        rank = monitors[prefix + "effective_rank"]
        limits = {
            "unit_std": (not spread >= cfg.min_unit_std, spread, cfg.min_unit_std),
            "random_pair_cosine": (not cosine <= cfg.max_random_pair_cosine, cosine, cfg.max_random_pair_cosine),
            "effective_rank": (not rank >= cfg.min_effective_rank, rank, cfg.min_effective_rank),
        }
        if math.isnan(cosine) and math.isfinite(spread):
            del limits["random_pair_cosine"]
        found = [
            self._count(prefix + name, broken, step, (value, limit, cfg.evaluations))
            for name, (broken, value, limit) in limits.items()
        ]
        return [alarm for alarm in found if alarm is not None]

    def state_dict(self) -> dict[str, int]:
        """Counters, for the checkpoint."""
        return dict(self._broken)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take up the counters of a checkpoint."""
        self._broken = dict(state)

    def _count(self, name: str, broken: bool, step: int, case: tuple[float, float, int]) -> Alarm | None:
        value, limit, patience = case
        self._broken[name] = self._broken.get(name, 0) + 1 if broken else 0
        if self._broken[name] != patience:
            return None
        times = "at once" if patience == 1 else f"{patience} times in a row"
        message = f"alarm {name} at step {step}: value {value:.4g}, limit {limit:.4g}, broken {times}"
        return Alarm(name, step, value, limit, message)
