"""All metrics of an evaluation: embed every sample once, then each group per split.

manifest rows ─1:1─► records (Ray actors with the model) ─► consistency, classification, retrieval (this process)
                                                         └► frame probes ─1:1─► proposals (the actors) ─► localisation
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.evaluation.classification_group import Parts, classification_group
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.consistency_group import consistency_group
from pipelines.evaluation.embedding import EmbedSetup
from pipelines.evaluation.inputs import EvaluationInputs
from pipelines.evaluation.localisation_group import fit_frame_probes, localisation_group
from pipelines.evaluation.metric_table import Absent, GroupResult, MetricRow, with_note
from pipelines.evaluation.records import OURS, RAW, VideoRecord
from pipelines.evaluation.retrieval_group import TextFeatures, all_texts, retrieval_group
from pipelines.evaluation.spread import EmbedderPool, device_of

logger = logging.getLogger(__name__)

# Without a dev split one training video in so many chooses the probes' penalty.
_DEV_SHARE = 5
_MIN_ROWS_PER_VIDEO = 4
# Why a probe's figures on these splits would say nothing, and what that means for the figures that need no probe.
_NO_PROBES = {
    "train": "probes are fitted on train, so figures on it would not be of held-out videos",
    "dev": "the probes' penalty is chosen on dev, so figures on it would not be of held-out videos",
}
_RANDOM_CLIP = "raw is chance here: the CLIP weights are random"
_SEEN = {"train": "not held out: the model was trained on this split", "dev": "not held out: dev chose the checkpoint"}


@dataclass(frozen=True, slots=True)
class SplitResult:
    """Everything measured on one split; `details` by group: consistency, classification, localisation, retrieval."""

    split: str
    records: list[VideoRecord]
    rows: list[MetricRow]
    absent: list[Absent]
    details: dict[str, dict[str, Any]]


def measure(config: EvaluateConfig, inputs: EvaluationInputs) -> list[SplitResult]:
    """Return the results of every split that the config names; Ray must be connected.

    Raises:
        ConservationError: a sample was lost or embedded twice.
    """
    needed = {"train", "dev", *config.splits}
    rows = [row for row in inputs.manifest.frame.iter_rows(named=True) if row["split"] in needed]
    with EmbedderPool(_setup(config, inputs, len(rows)), config.resources) as pool:
        logger.info("embedding %d videos of the splits %s", len(rows), ", ".join(sorted(needed)))
        records = pool.embed(rows)
        rows_by_key = {str(row["key"]): row for row in rows}
        return [measure_split(config, inputs, pool, (records, rows_by_key, split)) for split in config.splits]


def make_parts(records: Sequence[VideoRecord], split: str) -> Parts:
    """Return the videos that probes are fitted on, chosen on and reported on.

    Without dev videos, a fifth of train by a hash of the key takes their place and is left out of the fit.
    """
    train = [record for record in records if record.split == "train"]
    dev = [record for record in records if record.split == "dev"]
    note = f"{len(dev)} dev videos"
    if not dev and train:
        held_out = {record.key for record in train if _hash(record.key) % _DEV_SHARE == 0}
        dev = [record for record in train if record.key in held_out]
        train = [record for record in train if record.key not in held_out]
        note = f"{len(dev)} videos held out of train, as the store has no dev split"
    return Parts(train, dev, [record for record in records if record.split == split], split, note)


def _setup(config: EvaluateConfig, inputs: EvaluationInputs, num_videos: int) -> EmbedSetup:
    return EmbedSetup(
        checkpoint_uri=inputs.checkpoint.uri,
        store_uri=inputs.manifest.store_uri,
        encoders=tuple(inputs.manifest.encoders),
        clip=inputs.clip[1] if inputs.clip else None,
        l2_normalise=bool((inputs.info.config.get("stream") or {}).get("l2_normalise", False)),
        video_embedding=config.video_embedding,
        rows_per_video=max(_MIN_ROWS_PER_VIDEO, config.max_probe_rows // max(1, num_videos)),
        rows_per_forward=config.resources.rows_per_forward,
        device=device_of(config.resources),
        threads=max(1, int(config.resources.num_cpus_per_actor)),
    )


def measure_split(
    config: EvaluateConfig,
    inputs: EvaluationInputs,
    pool: EmbedderPool,
    place: tuple[list[VideoRecord], Mapping[str, Mapping[str, Any]], str],
) -> SplitResult:
    """Return the results of one split.

    Args:
        config: of the evaluation.
        inputs: what is evaluated.
        pool: finds segments and encodes texts.
        place: all records, the manifest's rows by key, and the split's name.
    """
    records, rows_by_key, split = place
    parts = make_parts(records, split)
    seen = "" if inputs.mark else _SEEN.get(split, "")  # of another store, nothing reported was seen
    groups = {"consistency": consistency_group(parts.report, split)}
    groups["classification"] = _or_absent(
        parts,
        ("video/linear_probe", "video/knn"),
        lambda: classification_group(parts, config.probe, knn_k=config.knn_k, seed=config.seed),
    )
    groups["localisation"] = _or_absent(
        parts, ("frame/localisation",), lambda: _localise(config, pool, (parts, rows_by_key), groups)
    )
    texts, why = _texts(inputs, pool, parts.report)
    groups["retrieval"] = retrieval_group(parts.report, split, texts, why)
    if inputs.raw_retrieval_is_chance:
        groups["retrieval"].rows[:] = [with_note(row, _RANDOM_CLIP) for row in groups["retrieval"].rows]
    return SplitResult(
        split,
        parts.report,
        [replace(with_note(row, seen), held_out=not seen) for group in groups.values() for row in group.rows],
        [absent for group in groups.values() for absent in group.absent],
        {name: group.details for name, group in groups.items()},
    )


def _or_absent(parts: Parts, places: tuple[str, ...], group: Any) -> GroupResult:
    why = probes_refused(parts)
    if why:
        return GroupResult([], [Absent(", ".join(f"{parts.split}/{place}/*" for place in places), why)], {})
    result: GroupResult = group()
    return result


def probes_refused(parts: Parts) -> str:
    """Return why no probe is reported on these videos; empty when probes are."""
    if parts.split in _NO_PROBES:
        return _NO_PROBES[parts.split]
    if parts.train and parts.dev:
        return ""
    return f"probes need train and dev videos; the store has {len(parts.train)} and {len(parts.dev)}"


def _localise(
    config: EvaluateConfig,
    pool: EmbedderPool,
    place: tuple[Parts, Mapping[str, Mapping[str, Any]]],
    groups: Mapping[str, GroupResult],
) -> GroupResult:
    parts, rows_by_key = place
    fitted = fit_frame_probes(parts, config.probe)
    if isinstance(fitted, Absent):
        return GroupResult([], [fitted], {})
    probes, names = fitted
    found = pool.localise([rows_by_key[record.key] for record in parts.report], probes, config.proposals)
    # Segments exist, so labels do too: the label probe of the classification group gives the whole-video floor.
    probability = groups["classification"].details["labels"]["probability"]
    return localisation_group(parts, found, names, probability, config.seed)


def _texts(
    inputs: EvaluationInputs, pool: EmbedderPool, records: Sequence[VideoRecord]
) -> tuple[TextFeatures, dict[str, str]]:
    if inputs.clip is None:
        return {}, {OURS: inputs.no_text, RAW: inputs.no_text}
    texts = all_texts(records)
    if not texts:
        return {}, {}
    spaces = pool.encode_texts(texts, inputs.clip[0])
    why = {} if OURS in spaces else {OURS: "the model was trained without text (model.alignment.enabled: false)"}
    return {kind: dict(zip(texts, features, strict=True)) for kind, features in spaces.items()}, why


def _hash(key: str) -> int:
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16)
