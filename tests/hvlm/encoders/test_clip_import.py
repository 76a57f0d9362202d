import subprocess
import sys


def test_only_who_trains_a_text_tower_imports_peft_and_transformers():
    """`pipelines.training.registry` imports every system, with open_clip; afterwards peft still finds transformers."""
    code = """
import sys
import pipelines.training.registry
found = {"open_clip", "peft", "transformers", "accelerate"} & sys.modules.keys()
assert found == {"open_clip"}, found
import peft
assert sys.modules["transformers"] is not None
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
