"""Small copies of the videos, a file per content: made when a video is first decoded, and decoded in its place since.

An encoder that is added later costs no download and no decoding of the originals.
"""

from dataclasses import dataclass

from hvlm.config import Config, require
from hvlm.errors import Reason
from hvlm.video.shrink import MIN_SIDE_PX, copy_identity
from hvlm.video.views import FrameView
from infra import storage
from pipelines.store.fingerprint import fingerprint
from pipelines.store.spans import file_part
from pipelines.store.staging import COPIES_FOLDER, COPY_ENDING

# As failures of a copy these say that its file is damaged. (Not: limits that the user set too low, storage.)
BROKEN = frozenset(
    {Reason.UNREADABLE, Reason.TRUNCATED, Reason.NO_VIDEO_STREAM, Reason.ZERO_FRAMES, Reason.UNSUPPORTED_CODEC}
    | {Reason.CRASHED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCacheConfig(Config):
    """Which copies are kept, and where.

    Args:
        short_side: pixels of the shorter side; smaller videos are not enlarged. At least what the encoders look at.
        uri: folder; several stores may share it. None: `frames` in the store.
    """

    short_side: int = 256
    uri: str | None = None

    def __post_init__(self) -> None:
        require(
            self.short_side >= MIN_SIDE_PX and self.short_side % 2 == 0,
            what="decode.cache.short_side",
            got=self.short_side,
            expected=f"an even number of pixels, {MIN_SIDE_PX} or more",
            do="set e.g. short_side: 256",
        )

    def check_view(self, encoder: str, view: FrameView) -> None:
        """Refuse an encoder that would see less, or other frames, in a copy.

        Raises:
            UserError: it looks at more pixels than a copy has, or at keyframes, which a copy has elsewhere.
        """
        wanted = view.resize if isinstance(view.resize, int) else min(view.resize)
        require(
            wanted <= self.short_side,
            what="decode.cache.short_side",
            got=self.short_side,
            expected=f"at least the {wanted} pixels that the encoder '{encoder}' looks at",
            do=f"set short_side: {wanted + wanted % 2} or more, or leave the cache out",
        )
        require(
            view.sampling.kind != "keyframes",
            what=f"encoders.{encoder}.sampling.kind",
            got="keyframes, with decode.cache",
            expected="a sampling by time or number: the keyframes of a copy are not those of its video",
            do="set e.g. kind: fps, or leave the cache out",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCache:
    """The copies of one size in one folder."""

    uri: str
    short_side: int

    @classmethod
    def of(cls, config: FrameCacheConfig, store_uri: str) -> "FrameCache":
        """Return the cache of a configuration."""
        uri = storage.absolute_uri(config.uri) if config.uri else storage.join(store_uri, COPIES_FOLDER)
        return cls(uri=uri, short_side=config.short_side)

    def copy_uri(self, content_hash: str, salvaged: bool) -> str:
        """Return where the copy of a content stands, or that of its decodable part.

        The name tells the settings and the library's version too: a copy made in another way is another file. It does
        not tell the spans: a copy is one of the whole video.
        """
        settings, content = fingerprint(copy_identity(self.short_side))[:8], file_part(content_hash)
        name = f"{content}-{self.short_side}-{settings}{'-salvaged' if salvaged else ''}{COPY_ENDING}"
        return storage.join(self.uri, content[:2], name)
