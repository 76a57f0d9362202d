"""Ego4D long-term anticipation: annotated actions of clips, and the samples "four seen, twenty to come".

    {"clips": [{"video_uid": "…", "clip_uid": "…", "action_idx": 0, "clip_parent_start_sec": 30.0,
                "action_clip_start_sec": 1.5, "action_clip_end_sec": 4.0, "verb_label": 3, "noun_label": 7}, …]}

Times of an action count from the start of its clip; `clip_parent_start_sec` is where the clip lies in the video.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from hvlm.data.activitynet import SpanS, fit_span
from hvlm.data.readers.parsing import number, read_json_mapping, refuse, text_of, whole_number
from hvlm.data.readers.rows import Problem, Rows

KEYS = (
    "video_uid",
    "clip_uid",
    "action_idx",
    "clip_parent_start_sec",
    "action_clip_start_sec",
    "action_clip_end_sec",
    "verb_label",
    "noun_label",
)


class TimedAction(NamedTuple):
    """An action: `number` counts within its clip, `span_s` is in seconds of the video."""

    video_id: str
    clip_id: str
    number: int
    span_s: SpanS
    verb: int
    noun: int


class AnticipationSample(NamedTuple):
    """What is seen and what comes after it, without a gap in the annotation's counting."""

    seen: tuple[TimedAction, ...]
    future: tuple[TimedAction, ...]

    @property
    def video_id(self) -> str:
        """Whose actions they are."""
        return self.seen[0].video_id

    @property
    def name(self) -> str:
        """As submissions call it: the clip and the index of the last action that is seen."""
        return f"{self.seen[-1].clip_id}_{self.seen[-1].number}"


def read_actions(text: str, origin: str = "fho_lta_train.json") -> Rows[TimedAction]:
    """Return the actions; spans that cannot be are left out and listed.

    Raises:
        UserError: not JSON, no clips, an entry of another shape, or an action of a clip twice.
    """
    entries = read_json_mapping(text, origin).get("clips")
    if not isinstance(entries, list):
        refuse(f"{origin}, clips", type(entries).__name__, "a list of actions")
    read: Rows[TimedAction] = Rows([], [])
    seen: set[tuple[str, int]] = set()
    for place, entry in enumerate(entries):
        action, problem = _action(entry, f"{origin}, clips[{place}]")
        if (action.clip_id, action.number) in seen:
            refuse(f"{origin}, clips[{place}]", f"action {action.number} of '{action.clip_id}' again", "each once")
        seen.add((action.clip_id, action.number))
        if problem is not None:
            read.problems.append(Problem(f"{origin}, clips[{place}]", action.video_id, problem))
        else:
            read.rows.append(action)
    return read


def anticipation_samples(actions: Iterable[TimedAction], num_seen: int, num_future: int) -> list[AnticipationSample]:
    """Return every run of `num_seen` and then `num_future` actions of a clip, in the order of clips and indices."""
    by_clip: dict[str, list[TimedAction]] = {}
    for action in sorted(actions, key=lambda action: (action.clip_id, action.number)):
        by_clip.setdefault(action.clip_id, []).append(action)
    samples = []
    for of_clip in by_clip.values():
        for start in range(len(of_clip) - num_seen - num_future + 1):
            run = of_clip[start : start + num_seen + num_future]
            if run[-1].number - run[0].number == len(run) - 1:  # an action that was left out would be missing inside
                samples.append(AnticipationSample(tuple(run[:num_seen]), tuple(run[num_seen:])))
    return samples


def _action(entry: Any, place: str) -> tuple[TimedAction, str | None]:
    if not isinstance(entry, dict) or not set(KEYS) <= set(entry):
        refuse(place, sorted(entry)[:8] if isinstance(entry, dict) else type(entry).__name__, f"the keys {KEYS}")
    offset_s = number(entry["clip_parent_start_sec"], f"{place}, clip_parent_start_sec")
    start_s, end_s = (
        offset_s + number(entry[name], f"{place}, {name}") for name in ("action_clip_start_sec", "action_clip_end_sec")
    )
    span_s, problem = fit_span(start_s, end_s, None)
    index, verb, noun = (
        whole_number(entry[name], f"{place}, {name}") for name in ("action_idx", "verb_label", "noun_label")
    )
    video_id, clip_id = (text_of(entry[name], f"{place}, {name}") for name in ("video_uid", "clip_uid"))
    action = TimedAction(video_id, clip_id, index, span_s or (start_s, end_s), verb, noun)
    return action, problem if span_s is None else None
