"""open_clip, imported without transformers.

open_clip 3 imports transformers wherever that is installed (peft needs it), for towers that this project does not run:
half a CPU second and 20 MiB in every process that encodes. So it must not find it. Import open_clip from here.
"""

import sys
from typing import Any


def _imported() -> Any:
    modules: dict[str, Any] = sys.modules
    hidden = "transformers" not in modules
    if hidden:
        modules["transformers"] = None  # Python's way to say that there is no such module
    try:
        import open_clip
    finally:
        if hidden:
            del modules["transformers"]
    return open_clip


open_clip = _imported()
