"""A copy of a source folder that changes while the job that reads it is dead: what `chaos` resumes jobs over."""

import random
import shutil
from pathlib import Path

from hvlm.synthetic.rendering import PictureConfig, format_of, render_video
from hvlm.synthetic.world import WorldConfig, make_world
from pipelines.store.sources import VIDEO_EXTENSIONS

CHANGES = ("add", "replace", "delete", "rename")
_FORMAT = format_of(0, PictureConfig(width_px=96, height_px=64, vary_every=0))


class ChangingSource:
    """A copy of the folder `original` at `path`; a change is the next kind of a seeded order, of a seeded file."""

    def __init__(self, original: Path, path: Path, rng: random.Random) -> None:
        shutil.copytree(original, path)
        self.path = path
        self._rng, self._kinds, self._number = rng, list[str](), 0

    def change(self) -> str:
        """Add, replace, delete or rename one video and say which."""
        self._kinds = self._kinds or self._rng.sample(CHANGES, len(CHANGES))
        kind, self._number = self._kinds.pop(), self._number + 1
        videos = sorted(path for path in self.path.rglob("*") if path.suffix.lower() in VIDEO_EXTENSIONS)
        chosen = self._rng.choice(videos)
        made = chosen.with_name(f"{kind}-{self._number}{chosen.suffix}")
        match kind:
            case "add":
                self._render(made)
                return f"{made.name} was added"
            case "replace":
                self._render(chosen)
                return f"{chosen.name} was replaced"
            case "delete":
                chosen.unlink()
                return f"{chosen.name} was deleted"
            case _:
                chosen.rename(made)
                return f"{chosen.name} was renamed to {made.name}"

    def _render(self, path: Path) -> None:
        """Write a new video: whatever the ending says, decoders look at the content."""
        seed = self._rng.randrange(2**31)
        (script,) = make_world(WorldConfig(seed=seed, num_videos=1, min_duration_s=6.0, max_duration_s=8.0))
        render_video(script, _FORMAT, path)
