"""The published claims about the systems as data, and beside each what the runs measured on our own data.

The published figures are examined here, never used: no test and no other table reads them. What is known of each comes
from reading the published repositories, their logs and result files, and papers that quote them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hvlm.metrics.comparison import SeedSpread, seed_spread
from pipelines.reporting.methods import Method
from pipelines.reporting.runs import EvaluatedRun

ACTIVITYNET, EGO4D = "activitynet-1.3", "ego4d"
"""What the data tag of a run has to say for its figures to stand beside published ones of ActivityNet, or of Ego4D."""
_RTX = "2 × RTX 4090"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One published figure.

    Args:
        figure: what it is a figure of.
        published: (system, value as printed).
        known: what is known of it.
        on: the data or the hardware that it was published for.
        data: value of the runs' data tag with which ours are of the same data; None where data do not decide.
        metrics: patterns of the metrics that the runs have of it; empty where training and evaluation log none.
    """

    figure: str
    published: tuple[tuple[str, str], ...]
    known: str
    on: str
    data: str | None = None
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What was published about one system, and where."""

    name: str
    source: str
    claims: tuple[Claim, ...]


_ROWS = ("Direct Transformer", "TSN", "MoCo v2", "VideoCLIP", "HierarchicalVLM")
_STEPS = ("Direct Transformer", "+ temporal", "+ collapse prevention", "+ pyramid", "+ VL")


def _of(systems: Sequence[str], values: str) -> tuple[tuple[str, str], ...]:
    return tuple(zip(systems, values.split(), strict=True))


_HIERARCHICAL_VLM: tuple[Claim, ...] = (
    Claim(
        figure="temporal consistency",
        published=_of(_ROWS, ".582 .598 .642 .691 .747"),
        known="Printed by scripts as literals; the result file says .612. The raw input features have about .851, so "
        "every published value is below doing nothing; 1.0 is the collapsed optimum.",
        on="ActivityNet-1.3 val, I3D features",
        data=ACTIVITYNET,
        metrics=("*/frame/temporal_consistency", "*/frame/contrast_gap", "*/frame/boundary_contrast"),
    ),
    Claim(
        figure="classification",
        published=_of(_ROWS, ".672 .681 .715 .758 .841"),
        known="All seven “measurements” equal floor(table × 427) / 427; val has 4,427 videos. .841 / .672 is +25.1 %, "
        "not the printed +34.2 %.",
        on="ActivityNet-1.3 val",
        data=ACTIVITYNET,
        metrics=("*/video/linear_probe/labels/mean_ap", "*/video/linear_probe/labels/hit_at_1"),
    ),
    Claim(
        figure="localisation, IoU@.5",
        published=_of(_ROWS, ".514 .527 .589 .627 .728"),
        known="Contradicted by its own file (.972); no predictor exists. Strong localisers reach about 37 % "
        "average mAP.",
        on="ActivityNet-1.3 val",
        data=ACTIVITYNET,
        metrics=(
            "*/frame/localisation/map_at_tiou_0_5",
            "*/frame/localisation/average_map",
            "*/frame/localisation/hit_at_tiou_0_5",
            "*/pyramid/localisation/map_at_tiou_0_5",
            "*/pyramid/localisation/average_map",
        ),
    ),
    Claim(
        figure="ablation: temporal consistency / classification",
        published=_of(_STEPS, ".582/.672 .724/.801 .731/.812 .745/.823 .747/.841"),
        known="No ablation code in any commit. The row without collapse prevention scores .724/.801 although the text "
        "says that it collapses within 5 epochs.",
        on="ActivityNet-1.3 val",
        data=ACTIVITYNET,
        metrics=("*/frame/temporal_consistency", "*/video/linear_probe/labels/hit_at_1"),
    ),
    Claim(
        figure="throughput of training",
        published=(("HierarchicalVLM", "1,575 samples/s"),),
        known="The logs give about 76 videos/s (50 × 64 in 41.7 s). 1,575 samples/s would need 191 TFLOP/s in fp32, "
        "more than both cards have.",
        on=_RTX,
        metrics=("train/samples_per_s", "train/frames_per_s", "train/data_wait_share", "train/padding_share"),
    ),
    Claim(
        figure="memory",
        published=(("HierarchicalVLM", "130 × less"),),
        known="62,500 / 484: score entries over stored tokens, different units; the sum is 494, so 126.5. The encoder "
        "before the pyramid is full attention.",
        on="T = 250, by arithmetic",
    ),
    Claim(
        figure="length of videos",
        published=(("HierarchicalVLM", "1000+ frames"),),
        known="Never run; full attention without a cap.",
        on="-",
    ),
    Claim(
        figure="parameters",
        published=(("HierarchicalVLM", "15.2 M"),),
        known="The trained model has 77,882,568; 15.2 M matches nothing.",
        on="-",
    ),
    Claim(
        figure="size of the weights",
        published=(("HierarchicalVLM", "298 MB (149 MB in fp16)"),),
        known="297.1 MiB is the model of 77.9 M; 15.2 M would be 58 MiB; the result file says 309.1 MB.",
        on="-",
    ),
    Claim(
        figure="inference",
        published=(("GPU", "2,847 frames/s"), ("CPU, 1 thread", "45 frames/s")),
        known="The result file says 235,322 and 5,577; the logs know RTX 4090s only.",
        on="V100; an unnamed CPU",
    ),
    Claim(
        figure="data",
        published=(("ActivityNet-1.3", "13,459 videos, 13,929 annotations, C3D 2048-d, 1 fps"),),
        known="Counts and layout are those of an I3D release with 0.64 s per row; C3D is 4096-d.",
        on="ActivityNet-1.3",
        data=ACTIVITYNET,
    ),
    Claim(
        figure="collapse without the variance term",
        published=(("README", "within 5 epochs"), ("project page", "10–20 epochs")),
        known="Seen only for mean(logits²), never for this loss, which had no gradient.",
        on="ActivityNet-1.3 val",
        data=ACTIVITYNET,
        metrics=("dev/hidden/unit_std", "dev/hidden/random_pair_cosine", "dev/hidden/effective_rank"),
    ),
)

_OF_EGO4D = ("EgoVLP", "HierVL-Avg", "HierVL-SA")
_HIERVL: tuple[Claim, ...] = (
    Claim(
        figure="EgoMCQ: inter-video / intra-video accuracy",
        published=_of(_OF_EGO4D, "90.6/57.2 90.3/53.1 90.5/52.4"),
        known="In percent, quoted by the paper of EgoVLPv2. Within a video the summaries cost 4 to 5 points against "
        "the single-level EgoVLP.",
        on="Ego4D, EgoMCQ",
        data=EGO4D,
        metrics=("*/clip/ego_mcq/inter/accuracy", "*/clip/ego_mcq/intra/accuracy"),
    ),
    Claim(
        figure="Charades-Ego: mAP zero-shot / fine-tuned",
        published=_of(_OF_EGO4D, "25.0/32.1 25.2/32.6 26.0/33.8"),
        known="In percent, quoted by the paper of EgoVLPv2. The published zero-shot value is of another checkpoint "
        "than those of the other benchmarks. Ours is fine-tuned by a small head alone.",
        on="training on Ego4D, Charades-Ego",
        data=EGO4D,
        metrics=("*/video/charades/zero_shot/mean_ap", "*/video/charades/small_head/mean_ap"),
    ),
    Claim(
        figure="EPIC-KITCHENS-100 retrieval, zero-shot: mAP / nDCG",
        published=_of(_OF_EGO4D, "16.6/23.1 16.7/23.5 18.9/24.7"),
        known="In percent, mean of both directions, quoted by the paper of EgoVLPv2. The released script always "
        "applies the dual softmax, which looks at the whole test set; whether these rows do is not known.",
        on="training on Ego4D, EPIC-KITCHENS-100",
        data=EGO4D,
        metrics=("*/clip/epic_mir/*mean_ap", "*/clip/epic_mir/*ndcg"),
    ),
    Claim(
        figure="EPIC-KITCHENS-100 retrieval, fine-tuned: mAP / nDCG",
        published=_of(_OF_EGO4D, "45.0/59.4 44.9/59.8 46.7/61.1"),
        known="As above; the released script says a margin of 0.4 and trains with 0.2.",
        on="training on Ego4D and EPIC-KITCHENS-100",
        data=EGO4D,
    ),
    Claim(
        figure="long-term anticipation, ED@20: verb / noun / action",
        published=(("HierVL", ".724/.735/.928"), ("Video+CLIP", ".739/.769/.941"), ("EgoT2", ".722/.764/.935")),
        known="Lower is better; quoted by the paper of VideoLLM-online. How the features were used was not released.",
        on="Ego4D, test set of the challenge",
        data=EGO4D,
        metrics=("*/clip/anticipation/edit_distance_at_*",),
    ),
    Claim(
        figure="SummaryMCQ, ShuffleMCQ, long videos of HowTo100M, ablations",
        published=(("HierVL", "n/a"),),
        known="Not found where the other figures were.",
        on="Ego4D, HowTo100M",
        data=EGO4D,
        metrics=("*/video/summary_mcq/accuracy", "*/video/shuffle_mcq/accuracy"),
    ),
)

PUBLICATIONS = (
    Publication(
        name="HierarchicalVLM",
        source="arrdel/hierarchical-vlm, commit 29700d9, README and project page",
        claims=_HIERARCHICAL_VLM,
    ),
    Publication(
        name="HierVL",
        source="second hand: the page of HierVL at Papers with Code, and the papers of EgoVLPv2 and VideoLLM-online",
        claims=_HIERVL,
    ),
)
_OF_SYSTEM = {"hiervl": "HierVL"}
"""System of a run -> publication; the others are HierarchicalVLM or its baselines."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one method has of one metric of a claim."""

    metric: str
    method: str
    spread: SeedSpread


@dataclass(frozen=True, slots=True)
class CheckedClaim:
    """A claim beside what was measured; `why_not`: why the two are not comparable, empty on the same data."""

    claim: Claim
    measured: tuple[Measured, ...]
    why_not: str


def check_publications(methods: Sequence[Method], data_tag: str) -> list[tuple[Publication, list[CheckedClaim]]]:
    """Return what was published about the systems of these methods, with the figures of their own runs."""
    found = []
    for publication in PUBLICATIONS:
        own = [method for method in methods if _publication(method) == publication.name]
        if own:
            found.append((publication, check_claims(own, data_tag, publication.claims)))
    return found


def check_claims(methods: Sequence[Method], data_tag: str, claims: Iterable[Claim]) -> list[CheckedClaim]:
    """Return every claim with the figures that the runs have of it."""
    named = sorted({run.tags.get(data_tag, "") for method in methods for run in method.runs})
    return [CheckedClaim(claim, tuple(_measured(claim, methods)), _why_not(claim, named, data_tag)) for claim in claims]


def _publication(method: Method) -> str:
    return _OF_SYSTEM.get(method.runs[0].params.get("system", ""), "HierarchicalVLM")


def _measured(claim: Claim, methods: Sequence[Method]) -> Iterator[Measured]:
    known = {run.run_id: _figures(run) for method in methods for run in method.runs}
    names = dict.fromkeys(name for figures in known.values() for name in figures)
    for name in (name for pattern in claim.metrics for name in names if fnmatchcase(name, pattern)):
        for method in methods:
            values = [known[run.run_id][name] for run in method.runs if name in known[run.run_id]]
            if values:
                yield Measured(name, method.name, seed_spread(values))


def _figures(run: EvaluatedRun) -> dict[str, float]:
    """Every figure of the wanted splits, and the last values that the training logged."""
    splits = run.document["splits"]
    rows = {row["name"]: row["ours"] for row in run.document["metrics"] if row["name"].partition("/")[0] in splits}
    trained = {name: value for name, value in run.metrics.items() if name.startswith(("train/", "dev/hidden/"))}
    return {name: float(value) for name, value in rows.items() if value is not None} | trained


def _why_not(claim: Claim, named: Sequence[str], data_tag: str) -> str:
    if not claim.metrics:
        return "not measured by training and evaluation runs"
    if claim.data is None:
        return f"published for {claim.on}; ours ran elsewhere"
    if list(named) == [claim.data]:
        return ""
    said = ", ".join(name for name in named if name) or "nothing"
    return f"published for {claim.on}; of our data the runs' tag {data_tag} says {said}"
