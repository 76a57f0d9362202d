import pytest
import torch

from hvlm.errors import UserError
from hvlm.models.heads import AlignmentConfig, AlignmentHeads, FrameClassifier, ProjectorConfig, build_projector


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_projector_sizes() -> None:
    assert count(build_projector(ProjectorConfig(dim=5), 8)) == 8 * 8 + 8 + 16 + 8 * 5 + 5
    assert count(build_projector(ProjectorConfig(kind="linear", dim=5), 8)) == 45
    assert count(build_projector(ProjectorConfig(kind="identity"), 8)) == 0


def test_classifier_has_one_logit_per_class_and_row() -> None:
    head = FrameClassifier(8, 3, 0.1)
    assert head(torch.randn(2, 5, 8)).shape == (2, 5, 3)
    assert count(head) == 27


@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_embeddings_are_unit_norm_and_text_length_does_not_matter(projection: str) -> None:
    heads = AlignmentHeads(AlignmentConfig(dim=6, projection=projection), 8, 4)  # type: ignore[arg-type]
    text = torch.randn(3, 4)
    torch.testing.assert_close(heads.embed_video(torch.randn(3, 8)).norm(dim=1), torch.ones(3))
    torch.testing.assert_close(heads.embed_text(text), heads.embed_text(7 * text), atol=1e-6, rtol=0)
    torch.testing.assert_close(heads.embed_text(text).norm(dim=1), torch.ones(3))


def test_scale_starts_at_20_and_stays_at_or_below_100_with_a_gradient() -> None:
    heads = AlignmentHeads(AlignmentConfig(), 8, 4)
    torch.testing.assert_close(heads.logit_scale(), torch.tensor(20.0))
    heads.log_scale.data.fill_(9.0)
    scale = heads.logit_scale()
    torch.testing.assert_close(scale, torch.tensor(100.0))
    scale.backward()
    assert heads.log_scale.grad is not None
    assert heads.log_scale.grad > 0


def test_temperature_below_the_clamp_is_refused() -> None:
    with pytest.raises(UserError, match="init_temperature"):
        AlignmentConfig(init_temperature=0.001)
