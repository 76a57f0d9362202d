"""A group of the store asks for nothing more."""

from pipelines.evaluation.hiervl.groups import Outcome, StoreGroup


def test_a_group_of_the_store_needs_nothing():
    assert (list(StoreGroup().places()), list(StoreGroup().texts())) == ([], [])
    assert Outcome().rows == () and Outcome().missing == {}
