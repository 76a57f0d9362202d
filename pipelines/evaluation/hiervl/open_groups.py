"""From the configuration to the groups of metrics: what the store always has, and a group for each named file."""

import io
from typing import NamedTuple

from hvlm.data.readers.anticipation import anticipation_samples, read_actions
from hvlm.data.readers.charades import CharadesClip, read_charades, read_charades_classes, read_charades_clips
from hvlm.data.readers.epic import read_epic_clips, read_epic_sentences, read_relevancy
from hvlm.data.readers.howto100m import read_howto100m
from hvlm.data.readers.multiple_choice import read_questions
from hvlm.data.readers.rows import Problem, Row, Rows
from hvlm.errors import UserError
from infra import storage
from pipelines.evaluation.hiervl.anticipation_group import AnticipationGroup
from pipelines.evaluation.hiervl.charades_group import CharadesGroup
from pipelines.evaluation.hiervl.checkpoint import LoadedHierVL
from pipelines.evaluation.hiervl.config import (
    AnticipationConfig,
    CharadesConfig,
    EpicConfig,
    HierVLEvaluateConfig,
    LongVideoConfig,
)
from pipelines.evaluation.hiervl.epic_group import EpicGroup
from pipelines.evaluation.hiervl.groups import Group
from pipelines.evaluation.hiervl.map_group import MapGroup
from pipelines.evaluation.hiervl.question_group import QuestionFileGroup, StoreQuestionGroup
from pipelines.evaluation.hiervl.video_groups import LabelGroup, LongVideoGroup, RetrievalGroup


class OpenedGroups(NamedTuple):
    """The groups, and what their files have that was cut or left out."""

    groups: list[Group]
    problems: list[Problem]


def open_groups(config: HierVLEvaluateConfig, loaded: LoadedHierVL) -> OpenedGroups:
    """Return the groups in the order of the report.

    Args:
        config: names the files.
        loaded: the model, and how clips were drawn for it.

    Raises:
        UserError: a file is not there, or not as its format says.
    """
    files = _Files(loaded.sampling.num_frames, config.seed)
    labels = LabelGroup(config.probe, config.knn_k, config.seed)
    groups: list[Group] = [RetrievalGroup(files.num_frames), StoreQuestionGroup(files.num_frames)]
    if config.ego_mcq_uri is not None:
        groups.append(files.questions("ego_mcq", "EgoMCQ", config.ego_mcq_uri))
    if config.summary_mcq_uri is not None:
        groups.append(files.questions("ego_summary_mcq", "SummaryMCQ, questions of a file", config.summary_mcq_uri))
    if config.epic is not None:
        groups.append(files.epic(config.epic))
    if config.charades is not None:
        groups.append(files.charades(config.charades, loaded.max_frames))
    groups.append(labels)
    if config.long_video is not None:
        groups.append(files.long_video(config.long_video, labels))
    if config.anticipation is not None:
        groups.append(files.anticipation(config.anticipation))
    if config.num_map_points:
        groups.append(MapGroup(config.num_map_points, files.num_frames, config.seed))
    return OpenedGroups(groups, files.problems)


class _Files:
    """Makes groups of files and keeps the problems that readers find. `num_frames`: of a clip."""

    def __init__(self, num_frames: int, seed: int) -> None:
        self.num_frames, self.seed = num_frames, seed
        self.problems: list[Problem] = []

    def questions(self, name: str, title: str, uri: str) -> QuestionFileGroup:
        return QuestionFileGroup(name, title, self._kept(read_questions(_text(uri), uri)), self.num_frames)

    def epic(self, files: EpicConfig) -> EpicGroup:
        clips = read_epic_clips(_lines(files.clips_uri), files.clips_uri)
        sentences = read_epic_sentences(_lines(files.sentences_uri), files.sentences_uri)
        shape = (len(clips.rows) + len(clips.problems), len(sentences))  # a clip with a wrong span has its line too
        relevancy = read_relevancy(_bytes(files.relevancy_uri), shape, files.relevancy_uri)
        return EpicGroup(self._kept(clips), sentences, relevancy, self.num_frames, self.seed)

    def charades(self, files: CharadesConfig, max_frames: int | None) -> CharadesGroup:
        if max_frames is not None and files.num_frames > max_frames:
            raise UserError(
                what="charades.num_frames",
                got=files.num_frames,
                expected=f"at most {max_frames}, sampling.num_frames of the training",
                do="lower it",
            )
        names = read_charades_classes(_lines(files.classes_uri), files.classes_uri)
        videos = read_charades(_lines(files.videos_uri), names, files.videos_uri)
        train: list[CharadesClip] = []
        if files.train_clips_uri is not None:
            read = read_charades_clips(_lines(files.train_clips_uri), names, files.train_clips_uri)
            train = self._kept(read)
        return CharadesGroup(
            videos=self._kept(videos),
            class_names=names,
            train=train,
            head=files.head,
            num_frames=files.num_frames,
            seed=self.seed,
        )

    def long_video(self, files: LongVideoConfig, labels: LabelGroup) -> LongVideoGroup:
        train, test = (self._kept(read_howto100m(_lines(uri), uri)) for uri in (files.train_uri, files.test_uri))
        return LongVideoGroup(train, test, labels)

    def anticipation(self, files: AnticipationConfig) -> AnticipationGroup:
        train, test = (
            anticipation_samples(self._kept(read_actions(_text(uri), uri)), files.num_seen, files.num_future)
            for uri in (files.train_uri, files.test_uri)
        )
        return AnticipationGroup(
            train=train,
            test=test,
            head=files.head,
            num_sequences=files.num_sequences,
            num_frames=self.num_frames,
            seed=self.seed,
        )

    def _kept(self, read: Rows[Row]) -> list[Row]:
        self.problems += read.problems
        return read.rows


def _bytes(uri: str) -> bytes:
    with storage.reachable("an annotation file", uri):
        try:
            return storage.read_bytes(uri)
        except FileNotFoundError as error:
            raise UserError(
                what="an annotation file", got=f"{uri}, which is not there", expected="a file", do="correct the URI"
            ) from error


def _text(uri: str) -> str:
    try:
        return _bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(what=uri, got=str(error), expected="text in UTF-8", do="save it so") from error


def _lines(uri: str) -> io.StringIO:
    return io.StringIO(_text(uri), newline="")
