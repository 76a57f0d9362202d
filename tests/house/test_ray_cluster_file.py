"""ray_cluster.yaml against Ray's own schema, and what we promise about it."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.house.source_tree import ROOT

CLUSTER = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text(encoding="utf-8"))
NODES = CLUSTER["available_node_types"]
SCHEMA = Path(ray.autoscaler.__file__).parent / "ray-schema.json"


@pytest.fixture
def prepared():
    """The file as `ray up` completes it, without asking the cloud."""
    return prepare_config(copy.deepcopy(CLUSTER))


def test_rays_schema_accepts_it(prepared):
    jsonschema.validate(CLUSTER, json.loads(SCHEMA.read_text(encoding="utf-8")))
    validate_config(prepared)


@pytest.mark.parametrize("change", [{"idle_timeout_minuts": 5}, {"max_workers": "many"}, {"provider": {}}])
def test_rays_schema_would_refuse_a_mistake(change):
    with pytest.raises(jsonschema.ValidationError, match=r"idle_timeout_minuts|many|'type' is a required"):
        validate_config({**CLUSTER, **change})


def test_the_head_takes_no_work(prepared):
    assert prepared["head_node_type"] == "head"
    assert prepared["available_node_types"]["head"]["resources"]["CPU"] == 0
    assert any(
        "ray start --head" in command and "--num-cpus=0" in command for command in CLUSTER["head_start_ray_commands"]
    )


def test_workers_start_and_end_with_demand(prepared):
    workers = {name: node for name, node in prepared["available_node_types"].items() if name != "head"}
    assert {name: (node["min_workers"], node["max_workers"]) for name, node in workers.items()} == {
        "decode": (0, 16),
        "gpu": (0, 2),
    }
    assert prepared["max_workers"] == sum(node["max_workers"] for node in workers.values())
    assert prepared["idle_timeout_minutes"] > 0


def test_every_node_gets_the_packages(prepared):
    """A node type's own list, also an empty one, takes the place of the common one."""
    for name, node in prepared["available_node_types"].items():
        own = node.get("worker_setup_commands")
        commands = (
            prepared["head_setup_commands" if name == "head" else "worker_setup_commands"] if own is None else own
        )
        assert any("pip install" in command and "requirements.lock" in command for command in commands), name


def test_decode_nodes_have_no_gpu_and_gpu_nodes_do():
    assert "GPU" not in NODES["decode"]["resources"]
    assert NODES["gpu"]["resources"]["GPU"] == 4


def test_token_authentication_is_on_everywhere():
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in CLUSTER[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert CLUSTER["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_the_images_carry_the_locked_ray():
    locked = re.search(r"^ray==(.+)$", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)[1]
    text = (ROOT / "ray_cluster.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"rayproject/ray:([\d.]+)-", text)) == {locked}


def test_mounted_files_exist():
    local = [path for path in CLUSTER["file_mounts"].values() if not path.startswith("~")]
    assert local and all((ROOT / path).is_file() for path in local)
