"""HierarchicalVLM as the evaluation sees it: embed every sample once, then each group of metrics per split.

manifest rows ─1:1─► records (Ray actors with the model) ─► consistency, classification, retrieval (this process)
                                                         └► frame probes, localisation heads ─1:1─► segments
                                                            (the actors) ─► localisation
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from hvlm.encoders.config import ClipConfig
from hvlm.errors import UserError
from infra.config_io import build_config
from pipelines.evaluation.classification_group import classification_group
from pipelines.evaluation.hierarchical_vlm.config import HierarchicalVLMEvaluateConfig
from pipelines.evaluation.hierarchical_vlm.consistency_group import consistency_group
from pipelines.evaluation.hierarchical_vlm.embedding import Embedder, EmbedSetup, Finders, LocaliserTask
from pipelines.evaluation.hierarchical_vlm.localisation_group import (
    LEVELS,
    HeadFit,
    fit_frame_probes,
    localisation_group,
    within_rows,
)
from pipelines.evaluation.hierarchical_vlm.outputs import MeasuredSplit, split_result
from pipelines.evaluation.hierarchical_vlm.records import VideoRecord
from pipelines.evaluation.hierarchical_vlm.trained_classifier import trained_classifier_rows
from pipelines.evaluation.inputs import EvaluationInputs
from pipelines.evaluation.metric_table import OURS, RAW, Absent, GroupResult, with_note
from pipelines.evaluation.parts import Parts, make_parts, probes_refused
from pipelines.evaluation.results import SplitResult
from pipelines.evaluation.retrieval_group import TextFeatures, all_texts, retrieval_group
from pipelines.evaluation.spread import ActorPool, device_of
from pipelines.evaluation.videos import VideoSource
from pipelines.training.baselines.classifier import TrainedClassifier, load_classifier
from pipelines.training.checkpoints import load_model
from pipelines.training.config import TextConfig
from pipelines.training.text import text_encoder_of

logger = logging.getLogger(__name__)

_MIN_ROWS_PER_VIDEO = 4
_RANDOM_CLIP = "raw is chance here: the CLIP weights are random"


@dataclass(frozen=True, slots=True)
class HierarchicalVLMEvaluation:
    """See `EvaluatedSystem`.

    Args:
        config: of the evaluation. inputs: checkpoint and data.
        clip: the text tower's config and the store's column of the same model; None with `no_text` saying why.
        classifier: of a supervised training.
    """

    config: HierarchicalVLMEvaluateConfig
    inputs: EvaluationInputs
    clip: tuple[ClipConfig, str] | None
    no_text: str = ""
    classifier: TrainedClassifier | None = None

    @classmethod
    def open(cls, config: HierarchicalVLMEvaluateConfig, inputs: EvaluationInputs) -> "HierarchicalVLMEvaluation":
        """Return the evaluation of a checkpoint.

        Raises:
            UserError: weights of another architecture, or a text tower of another store.
        """
        load_model(inputs.checkpoint.uri)  # refuses weights that do not fit before anything is read or started
        return cls(config, inputs, *_find_clip(config, inputs), load_classifier(inputs.checkpoint.uri))

    @property
    def raw_retrieval_is_chance(self) -> bool:
        """Whether the CLIP weights are random, so that its texts and images were never brought together."""
        return self.clip is not None and self.clip[0].pretrained == "random"

    @property
    def facts(self) -> dict[str, Any]:
        """What metrics.json says of the evaluation beyond what all evaluations say."""
        return {
            "raw_retrieval_is_chance": self.raw_retrieval_is_chance,
            "video_embedding": self.config.video_embedding,
        }

    def measure(self) -> list[SplitResult]:
        """Return the results of every split that the configuration names; Ray must be connected.

        Raises:
            ConservationError: a sample was lost or embedded twice.
        """
        needed = {"train", "dev", *self.config.splits}
        rows = [row for row in self.inputs.manifest.frame.iter_rows(named=True) if row["split"] in needed]
        with ActorPool(Embedder, self._setup(len(rows)), self.config.resources) as pool:
            logger.info("embedding %d videos of the splits %s", len(rows), ", ".join(sorted(needed)))
            records: list[VideoRecord] = pool.map(rows, "embed")
            rows_by_key = {str(row["key"]): row for row in rows}
            measured = [self.measure_split(pool, (records, rows_by_key, split)) for split in self.config.splits]
        return [split_result(of_split, self.config.num_timelines) for of_split in measured]

    def _setup(self, num_videos: int) -> EmbedSetup:
        config, manifest = self.config, self.inputs.manifest
        return EmbedSetup(
            checkpoint_uri=self.inputs.checkpoint.uri,
            source=VideoSource(
                store_uri=manifest.store_uri,
                encoders=tuple(manifest.encoders),
                clip=self.clip[1] if self.clip else None,
                l2_normalise=bool((self.inputs.info.config.get("stream") or {}).get("l2_normalise", False)),
            ),
            video_embedding=config.video_embedding,
            rows_per_video=max(_MIN_ROWS_PER_VIDEO, config.max_probe_rows // max(1, num_videos)),
            rows_per_forward=config.resources.rows_per_forward,
            device=device_of(config.resources),
            threads=max(1, int(config.resources.num_cpus_per_actor)),
        )

    def measure_split(
        self, pool: ActorPool, place: tuple[list[VideoRecord], Mapping[str, Mapping[str, Any]], str]
    ) -> MeasuredSplit:
        """Return the results of one split.

        Args:
            pool: finds segments and encodes texts.
            place: all records, the manifest's rows by key, and the split's name.
        """
        records, rows_by_key, split = place
        config, parts = self.config, make_parts(records, split)
        seen = self.inputs.seen(split)
        groups = {"consistency": consistency_group(parts.report, split)}
        groups["classification"] = _or_absent(
            parts,
            ("video/linear_probe", "video/knn"),
            lambda: classification_group(parts, config.probe, knn_k=config.knn_k, seed=config.seed),
        )
        if self.classifier is not None:
            rows = trained_classifier_rows(parts.report, split, self.classifier, config.seed)
            groups["classification"].rows.extend(rows)
        groups["localisation"] = _or_absent(
            parts,
            tuple(f"{level}/localisation" for level in LEVELS.values()),
            lambda: self._localise(pool, (parts, rows_by_key), groups),
        )
        texts, why = self._texts(pool, parts.report)
        groups["retrieval"] = retrieval_group(parts.report, split, texts, why)
        if self.raw_retrieval_is_chance:
            groups["retrieval"].rows[:] = [with_note(row, _RANDOM_CLIP) for row in groups["retrieval"].rows]
        return MeasuredSplit(
            split,
            parts.report,
            [
                replace(with_note(row, seen), held_out=not seen, group=name)
                for name, group in groups.items()
                for row in group.rows
            ],
            [absent for group in groups.values() for absent in group.absent],
            {name: group.details for name, group in groups.items()},
        )

    def _localise(
        self,
        pool: ActorPool,
        place: tuple[Parts[VideoRecord], Mapping[str, Mapping[str, Any]]],
        groups: Mapping[str, GroupResult],
    ) -> GroupResult:
        parts, rows_by_key = place
        fitted = fit_frame_probes(parts, self.config.probe)
        if isinstance(fitted, Absent):
            return GroupResult([], [fitted], {})
        probes, names = fitted
        config, length = self.config, f"{next(iter(self.inputs.manifest.encoders))}.num_rows"
        train, dev, rows = (
            [rows_by_key[record.key] for record in part] for part in (parts.train, parts.dev, parts.report)
        )
        train, dev = (within_rows(part, length, config.max_probe_rows) for part in (train, dev))
        task = LocaliserTask(names=names, config=config.localiser, proposals=config.proposals, seed=config.seed)
        localisers = pool.call("fit_localisers", train, dev, task)
        finders = Finders(probes=dict(probes), localisers=localisers, proposals=config.proposals)
        found = pool.map(rows, "localise", ray.put(finders))
        # Segments exist, so labels do too: the label probe of the classification group gives the whole-video floor.
        probability = groups["classification"].details["labels"]["probability"]
        fits = {kind: HeadFit(len(train), each.step, each.dev) for kind, each in localisers.items()}
        return localisation_group(parts, found, names, fits, probability, self.config.seed)

    def _texts(self, pool: ActorPool, records: Sequence[VideoRecord]) -> tuple[TextFeatures, dict[str, str]]:
        if self.clip is None:
            return {}, {OURS: self.no_text, RAW: self.no_text}
        texts = all_texts(records)
        if not texts:
            return {}, {}
        spaces = pool.call("encode_texts", texts, self.clip[0])
        why = {} if OURS in spaces else {OURS: "the model was trained without text (model.alignment.enabled: false)"}
        return {kind: dict(zip(texts, features, strict=True)) for kind, features in spaces.items()}, why


def _or_absent(parts: Parts[VideoRecord], places: tuple[str, ...], group: Callable[[], GroupResult]) -> GroupResult:
    why = probes_refused(parts)
    if why:
        return GroupResult([], [Absent(", ".join(f"{parts.split}/{place}/*" for place in places), why)], {})
    return group()


def _find_clip(
    config: HierarchicalVLMEvaluateConfig, inputs: EvaluationInputs
) -> tuple[tuple[ClipConfig, str] | None, str]:
    trained_with = inputs.info.config
    aligned = bool(trained_with["model"]["alignment"]["enabled"])
    trained = build_config(TextConfig, dict(trained_with.get("text") or {}), origin="the checkpoint's text").encoder
    encoder = trained if aligned or config.text_encoder is None else config.text_encoder
    if encoder is None:
        return None, "neither the training nor text_encoder names the store's CLIP model, so texts cannot be encoded"
    try:
        clip, fingerprint = text_encoder_of(inputs.manifest, TextConfig(encoder=encoder))
    except UserError as error:
        if aligned:
            raise
        return None, str(error)
    return (clip, inputs.column_of(fingerprint)), ""
