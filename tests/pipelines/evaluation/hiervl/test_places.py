"""Places are equal where they are the same part of a video, read alike."""

from pipelines.evaluation.hiervl.places import Place
from tests.pipelines.evaluation.hiervl.planted_hiervl import video


def test_places_of_a_video():
    one = video("a", {}, captions=[{"text": "x", "segment": (1.0, 2.0)}])
    assert one.segment() == Place("a", 0.0, 10.0)
    assert one.caption_places(4) == [Place("a", 1.0, 2.0, 4)]
    assert one.caption_places(4)[0].span_s == (1.0, 2.0)
    assert Place("a", 0.0, 10.0) != Place("a", 0.0, 10.0, 4)
