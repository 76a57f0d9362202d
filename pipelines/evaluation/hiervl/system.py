"""HierVL as the evaluation sees it: groups say what they need, every video is embedded once, then each group measures.

places and texts of all groups ─► manifest rows ─1:1─► vectors (Ray actors with the model) ─► groups (this process)
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from hvlm.data.readers.rows import Problem
from hvlm.encoders.config import ClipConfig
from pipelines.evaluation.classification_group import activity_of
from pipelines.evaluation.hiervl.checkpoint import load_hiervl
from pipelines.evaluation.hiervl.config import HierVLEvaluateConfig
from pipelines.evaluation.hiervl.embedding import ASKED, EmbedSetup, HierVLEmbedder
from pipelines.evaluation.hiervl.groups import Group, Outcome
from pipelines.evaluation.hiervl.open_groups import OpenedGroups, open_groups
from pipelines.evaluation.hiervl.places import Place, VideoVectors
from pipelines.evaluation.hiervl.vectors import SplitVectors
from pipelines.evaluation.inputs import EvaluationInputs
from pipelines.evaluation.metric_table import Absent, with_note
from pipelines.evaluation.results import Section, SplitResult
from pipelines.evaluation.retrieval_group import TextFeatures
from pipelines.evaluation.spread import ActorPool, device_of
from pipelines.evaluation.videos import VideoSource
from pipelines.training.config import TextConfig
from pipelines.training.text import text_encoder_of

logger = logging.getLogger(__name__)

_NUM_NAMED = 5
_RANDOM_CLIP = "raw is chance here: the CLIP weights are random"


@dataclass(frozen=True, slots=True)
class HierVLEvaluation:
    """See `EvaluatedSystem`.

    Args:
        config: of the evaluation. inputs: checkpoint and data.
        clip: the text tower's config and the store's column of the same model.
        opened: groups of metrics in the order of the report, and problems of their files.
    """

    config: HierVLEvaluateConfig
    inputs: EvaluationInputs
    clip: tuple[ClipConfig, str]
    opened: OpenedGroups

    @classmethod
    def open(cls, config: HierVLEvaluateConfig, inputs: EvaluationInputs) -> "HierVLEvaluation":
        """Return the evaluation of a checkpoint.

        Raises:
            UserError: weights of another architecture, a text tower of another store, or an annotation file that is not
                there or not as its format says.
        """
        loaded = load_hiervl(inputs.checkpoint.uri)
        encoder, fingerprint = text_encoder_of(inputs.manifest, TextConfig(encoder=loaded.text_encoder))
        return cls(config, inputs, (encoder, inputs.column_of(fingerprint)), open_groups(config, loaded))

    @property
    def facts(self) -> dict[str, Any]:
        """What metrics.json says of the evaluation beyond what all evaluations say."""
        problems = [problem._asdict() for problem in self.opened.problems]
        return {"raw_retrieval_is_chance": self._raw_is_chance, "annotation_problems": problems}

    def measure(self) -> list[SplitResult]:
        """Return the results of every split that the configuration names; Ray must be connected.

        Raises:
            ConservationError: a video was lost or embedded twice.
        """
        needed = {"train", "dev", *self.config.splits}
        asked: dict[str, list[Place]] = {}
        for place in dict.fromkeys(place for group in self.opened.groups for place in group.places()):
            asked.setdefault(place.video_id, []).append(place)
        rows = [
            row | {ASKED: asked.get(row["video_id"], [])}
            for row in self.inputs.manifest.frame.iter_rows(named=True)
            if row["split"] in needed
        ]
        with ActorPool(HierVLEmbedder, self._setup(), self.config.resources) as pool:
            logger.info("embedding %d videos of the splits %s", len(rows), ", ".join(sorted(needed)))
            videos: list[VideoVectors] = pool.map(rows, "embed")
            texts = self._texts(pool, videos)
        columns = self._clip_columns()
        return [self._measure_split(SplitVectors(split, videos, texts, columns)) for split in self.config.splits]

    @property
    def _raw_is_chance(self) -> bool:
        return self.clip[0].pretrained == "random"

    def _setup(self) -> EmbedSetup:
        manifest, resources = self.inputs.manifest, self.config.resources
        return EmbedSetup(
            checkpoint_uri=self.inputs.checkpoint.uri,
            source=VideoSource(
                store_uri=manifest.store_uri,
                encoders=tuple(manifest.encoders),
                clip=self.clip[1],
                l2_normalise=bool(self.inputs.info.config["stream"]["l2_normalise"]),
            ),
            rows_per_forward=resources.rows_per_forward,
            device=device_of(resources),
            threads=max(1, int(resources.num_cpus_per_actor)),
        )

    def _texts(self, pool: ActorPool, videos: Iterable[VideoVectors]) -> TextFeatures:
        wanted = {text for group in self.opened.groups for text in group.texts()}
        for video in videos:
            if video.split in self.config.splits:
                wanted |= {str(caption["text"]) for caption in video.captions}
                wanted |= {video.summary} if video.summary else set()
        if not wanted:
            return {}
        texts = sorted(wanted)
        encoded = pool.call("encode_texts", texts, self.clip[0])
        return {kind: dict(zip(texts, features, strict=True)) for kind, features in encoded.items()}

    def _clip_columns(self) -> slice:
        """Columns of the joined features that the encoder with the text tower made."""
        names = [name for name, _ in self.inputs.info.encoders]
        place, widths = names.index(self.clip[1]), self.inputs.info.d_in
        return slice(sum(widths[:place]), sum(widths[: place + 1]))

    def _measure_split(self, vectors: SplitVectors) -> SplitResult:
        outcomes = {group.name: group.measure(vectors) for group in self.opened.groups}
        sections = {
            group.name: self._section(group, outcomes[group.name], vectors.split) for group in self.opened.groups
        }
        missing = {name: dict(outcome.missing) for name, outcome in outcomes.items() if outcome.missing}
        return SplitResult(
            split=vectors.split,
            samples=_samples(vectors.reported, outcomes.values()),
            sections=sections,
            absent=[
                *(absent for outcome in outcomes.values() for absent in outcome.absent),
                *(_named_missing(name, of_group) for name, of_group in missing.items()),
                *_named_problems(self.opened.problems),
            ],
            per_class_ap={name: ap for outcome in outcomes.values() for name, ap in outcome.per_class_ap.items()},
            facts={"missing_videos": missing},
            predictions={name: data for outcome in outcomes.values() for name, data in outcome.predictions.items()},
        )

    def _section(self, group: Group, outcome: Outcome, split: str) -> Section:
        seen = self.inputs.seen(split)
        rows = [replace(with_note(row, seen), held_out=not seen, group=group.name) for row in outcome.rows]
        if self._raw_is_chance and group.beside_text:
            rows = [with_note(row, _RANDOM_CLIP) for row in rows]
        return Section(group.title, rows, outcome.figures)


def _samples(videos: Sequence[VideoVectors], outcomes: Iterable[Outcome]) -> pl.DataFrame:
    """A row per video: what is known of it, and what groups say of each."""
    rows: list[dict[str, Any]] = [
        {
            "key": video.key,
            "video_id": video.video_id,
            "split": video.split,
            "duration_s": video.duration_s,
            "num_rows": video.num_rows,
            "num_bad_rows": video.num_bad_rows,
            "num_captions": len(video.captions),
            "labels": sorted({str(item["label"]) for item in video.annotations}),
            "activity": activity_of(video),
            "summary": video.summary,
        }
        for video in videos
    ]
    for outcome in outcomes:
        for name, of_video in outcome.columns.items():
            for row in rows:
                row[name] = of_video.get(row["key"])
    schema: dict[str, Any] = {"labels": pl.List(pl.String), "activity": pl.String, "summary": pl.String}
    return pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)


def _named_problems(problems: Sequence[Problem]) -> list[Absent]:
    said = "; ".join(f"{problem.where}: {problem.message}" for problem in problems[:_NUM_NAMED])
    more = f"; and {len(problems) - _NUM_NAMED} more, listed in metrics.json" if len(problems) > _NUM_NAMED else ""
    return [Absent(f"{len(problems)} rows of annotation files, cut or left out", said + more)] if problems else []


def _named_missing(group: str, missing: dict[str, int]) -> Absent:
    named = ", ".join(f"'{video}' ({count})" for video, count in list(missing.items())[:_NUM_NAMED])
    more = f" and {len(missing) - _NUM_NAMED} more, listed in metrics.json" if len(missing) > _NUM_NAMED else ""
    return Absent(
        f"{group}: {sum(missing.values())} entries", f"videos of its files that are not in the split: {named}{more}"
    )
