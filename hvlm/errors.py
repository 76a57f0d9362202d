"""The errors that a user sees. Each says what is wrong, what was got, what was expected and what to do."""

from enum import StrEnum


class UserError(ValueError):
    """A mistake that the user can mend: a job prints its message without a stack trace and exits with 2.

    Args:
        what: the thing that is wrong (a config key, a file, a table).
        got: its value.
        expected: what would have been right.
        do: what the user does to mend it.
    """

    def __init__(self, *, what: str, got: object, expected: str, do: str) -> None:
        self.what, self.got, self.expected, self.do = what, got, expected, do
        super().__init__(f"{what}: got {got}; expected {expected}; {do}")

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions pickle by positional arguments; without this a Ray task could not hand the error back.
        return _rebuild_user_error, (self.what, self.got, self.expected, self.do)


def _rebuild_user_error(what: str, got: object, expected: str, do: str) -> UserError:
    return UserError(what=what, got=got, expected=expected, do=do)


class JobError(Exception):
    """A job ends without its result for a stated reason: the message is printed alone, the exit code is 1."""


class Reason(StrEnum):
    """Why a video is in quarantine."""

    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    NO_VIDEO_STREAM = "no_video_stream"
    ZERO_FRAMES = "zero_frames"
    UNSUPPORTED_CODEC = "unsupported_codec"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    STORAGE_TRANSIENT = "storage_transient"
    STORAGE_PERMANENT = "storage_permanent"
    ENCODER_ERROR = "encoder_error"
    DUPLICATE_ID = "duplicate_id"
    BAD_NAME = "bad_name"


class VideoError(Exception):
    """A failure of one video: it becomes a quarantine row and never stops the other videos.

    Args:
        reason: the typed reason.
        message: what happened, with the numbers.
        permanent: False when trying again later may succeed (storage, memory).
    """

    def __init__(self, reason: Reason, message: str, *, permanent: bool = True) -> None:
        self.reason, self.message, self.permanent = reason, message, permanent
        super().__init__(f"{reason}: {message}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_video_error, (self.reason, self.message, self.permanent)


def _rebuild_video_error(reason: Reason, message: str, permanent: bool) -> VideoError:
    return VideoError(reason, message, permanent=permanent)
