"""Messages say what, got, expected, do; both errors travel between processes."""

import pickle

import pytest

from hvlm.errors import Reason, UserError, VideoError


def test_a_user_error_says_all_four_things():
    error = UserError(what="sampling.fps", got=-1, expected="above 0", do="set e.g. fps: 1.0")
    assert str(error) == "sampling.fps: got -1; expected above 0; set e.g. fps: 1.0"
    assert (error.what, error.got, error.expected, error.do) == ("sampling.fps", -1, "above 0", "set e.g. fps: 1.0")


def test_a_user_error_survives_pickling():
    """A Ray task hands it back to the job, which must still know it as the user's."""
    again = pickle.loads(pickle.dumps(UserError(what="a", got=1, expected="b", do="c")))
    assert isinstance(again, UserError)
    assert str(again) == "a: got 1; expected b; c"


@pytest.mark.parametrize("permanent", [True, False])
def test_a_video_error_survives_pickling(permanent):
    again = pickle.loads(pickle.dumps(VideoError(Reason.TRUNCATED, "12 of 40 frames", permanent=permanent)))
    assert isinstance(again, VideoError)
    assert (again.reason, again.message, again.permanent) == (Reason.TRUNCATED, "12 of 40 frames", permanent)
    assert str(again) == "truncated: 12 of 40 frames"


def test_reasons_are_plain_words():
    """They stand in tables and on command lines."""
    assert all(str(reason).replace("_", "").isalpha() and str(reason).islower() for reason in Reason)
