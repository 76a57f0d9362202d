"""What a configuration means for the pipeline."""

from collections.abc import Callable

import pytest

from hvlm.errors import UserError
from pipelines.extraction.config import ExtractConfig
from pipelines.extraction.stages import encoder_columns, layout_of, new_run_id, stages_of

Config = Callable[..., ExtractConfig]


def test_fingerprints_follow_what_shapes_the_features(config: Config) -> None:
    base = encoder_columns(config())
    other_decoder = encoder_columns(config(decode={"segment_s": 2.0, "backend": "decord"}))
    longer = encoder_columns(config(decode={"segment_s": 4.0}))
    assert base["clip"].fingerprint != other_decoder["clip"].fingerprint
    assert base["clip"].fingerprint == longer["clip"].fingerprint


def test_only_segments_of_one_length_and_kind_go_together(ray_cluster: None, config: Config) -> None:
    long, short = config(decode={"segment_s": 4.0}), config(decode={"segment_s": 2.0})
    assert layout_of(long) == layout_of(config(decode={"segment_s": 4.0})) != layout_of(short)
    columns = encoder_columns(long)
    whole, part = (stages_of(long, columns, "/store", "run", salvage) for salvage in (False, True))
    assert (whole.decoder.salvage, part.decoder.salvage) == (False, True)
    layouts = [{encoder.layout for encoder in stages.staged.values()} for stages in (whole, part)]
    assert layouts[0] == {layout_of(long)} and layouts[0].isdisjoint(layouts[1])
    assert {name: encoder.fingerprint for name, encoder in whole.staged.items()} == {
        name: column.fingerprint for name, column in columns.items()
    }


def test_stages_that_no_cluster_node_can_hold_are_refused(ray_cluster: None, config: Config) -> None:
    greedy = config(resources={"decode_num_cpus": 64.0})
    with pytest.raises(UserError, match="CPU"):
        stages_of(greedy, encoder_columns(greedy), "/store", "run")


def test_two_runs_never_share_a_name() -> None:
    assert len({new_run_id() for _ in range(100)}) == 100
