"""What HierVL makes of a store before the workers start: levels, text features, counts, and where it starts from."""

import logging

from hvlm.encoders.clip import describe_clip
from hvlm.encoders.config import ClipConfig
from hvlm.errors import UserError
from infra import storage
from pipelines.store.manifest import Manifest
from pipelines.training.config import TextConfig
from pipelines.training.hiervl.config import HierVLTrainConfig
from pipelines.training.hiervl.levels import Levels, read_video_levels, write_levels
from pipelines.training.hiervl.start import pin_child_only
from pipelines.training.system import Prepared
from pipelines.training.text import EncodeText, make_text_table, read_metas, read_text_table

logger = logging.getLogger(__name__)

LEVELS_FILE = "levels.json"


def prepare_hiervl(config: HierVLTrainConfig, manifest: Manifest, encode: EncodeText | None) -> Prepared:
    """Return how long an epoch is; make the text features and write the levels into `output_uri`.

    An epoch is one pass over the captions, with as many parent steps as the schedule puts in between; without child
    steps it is one pass over the summaries.

    Raises:
        UserError: too few captions or summaries for a batch, no text tower of this store, or no training to start from.
    """
    metas = read_metas(manifest, ("train", "dev"))
    read = {meta.key: read_video_levels(meta) for meta in metas}
    levels = Levels({key: video for key, (video, _) in read.items()})
    keys = {meta.split: [other.key for other in metas if other.split == meta.split] for meta in metas}
    per_epoch = _steps_per_epoch(config, levels, keys.get("train", []))
    texts = {key: [(text, text) for text in each] for key, (_, each) in read.items()}
    encoder, trained = config.text.encoder, config.text.lora is not None
    uri = make_text_table(manifest, TextConfig(encoder=encoder), texts, encode, tokens=trained)
    d_text = describe_clip(encoder).dim if trained and isinstance(encoder, ClipConfig) else read_text_table(uri).dim
    start_tags = pin_child_only(config, manifest, d_text)
    write_levels(storage.join(config.output_uri, LEVELS_FILE), levels)
    return Prepared(
        steps_per_epoch=per_epoch,
        d_text=d_text,
        text_uri=uri,
        tags={**_counts(config, levels, keys), **start_tags},
    )


def _steps_per_epoch(config: HierVLTrainConfig, levels: Levels, train: list[str]) -> int:
    schedule, batching = config.model.schedule, config.batching
    videos = [levels.videos[key] for key in train]
    num_summaries = sum(len(each.summaries) for each in videos)
    num_captions = sum(len(each.captions) for each in videos)
    if config.model.summaries_as_captions:
        num_captions += num_summaries
    trained = {
        "child": ("captions", num_captions, batching.child_batch_size),
        "parent": ("summaries", num_summaries, batching.parent_batch_size),
    }
    batches = {}
    for level, (what, count, size) in trained.items():
        if schedule.kind not in ("alternate", "sum", level):
            continue
        if count < size:
            raise UserError(
                what=f"batching.{level}_batch_size",
                got=size,
                expected=f"at most the {count} {what} of the store's train split",
                do=f"lower it, or add {what} to the source and run jobs.extract again",
            )
        batches[level] = count // size
    if schedule.kind == "alternate":
        return batches["child"] + batches["child"] // schedule.child_steps
    return batches.get("child", 0) or batches["parent"]


def _counts(config: HierVLTrainConfig, levels: Levels, keys: dict[str, list[str]]) -> dict[str, object]:
    """Count what there is and what is not, and say the latter."""
    tags: dict[str, object] = {}
    for split, of_split in sorted(keys.items()):
        no_captions, no_summary = levels.without(of_split)
        bare = levels.bare_summaries(of_split)
        num_summaries = sum(len(levels.videos[key].summaries) for key in of_split)
        tags |= {
            f"num_captions.{split}": sum(len(levels.videos[key].captions) for key in of_split),
            f"num_summaries.{split}": num_summaries,
            f"num_without_captions.{split}": len(no_captions),
            f"num_without_summary.{split}": len(no_summary),
            f"num_summaries_without_captions.{split}": len(bare),
        }
        if no_captions or no_summary or bare:
            logger.warning(
                "%d of %d videos of '%s' have no captions, %d no summary, and %d of %d summaries cover no caption: "
                "listed in %s",
                len(no_captions),
                len(of_split),
                split,
                len(no_summary),
                len(bare),
                num_summaries,
                storage.join(config.output_uri, LEVELS_FILE),
            )
    return tags
