"""A CLIP text tower with LoRA adapters: the tower stays as it is, the adapters are trained with the model around it.

open_clip's attention is `nn.MultiheadAttention`, whose projections are bare parameters. peft adapts it by adding the
adapters to the frozen weights before every forward pass and taking them off again, and each time the weights are
rounded a little further away. So it is replaced by an attention with a linear layer for each projection, which peft
adapts like any other: the frozen weights keep their bits.

Shapes: B texts, L tokens, W width of the tower, X width of the text features.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (arXiv 2106.09685), 4.1.
"""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvlm.config import require
from hvlm.encoders.config import ClipConfig, LoraConfig
from hvlm.encoders.text import load_text_network
from hvlm.errors import UserError


class LoraTextTower(nn.Module):
    """Tokens to text features.

    Its state is the adapters, and a hash of the frozen tower that they belong to: they load into no other one.

    Args:
        network: of `load_text_network`; it becomes part of this module.
        dim: width X.
        config: of the adapters. Their first weights come from torch's generator, and change nothing yet.

    Raises:
        UserError: the tower has no such layers.
    """

    base_sha256: Tensor

    def __init__(self, network: nn.Module, dim: int, config: LoraConfig) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("base_sha256", torch.frombuffer(bytearray(_sha256(network)), dtype=torch.uint8))
        self.network: Any = _with_adapters(network, config)
        self.base_names = frozenset(name for name, each in self.network.named_parameters() if not each.requires_grad)
        self.register_state_dict_post_hook(_leave_out_base)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_check_base)  # type: ignore[no-untyped-call]

    def forward(self, token_BL: Tensor) -> Tensor:
        """Token ids (B, L) → (B, X), pooled and projected, not normalised."""
        features_BX: Tensor = self.network.encode_text(token_BL)
        return features_BX


class SplitAttention(nn.Module):
    """`nn.MultiheadAttention` with the same weights in a linear layer for each projection.

    Args:
        attention: of the tower; batch first, without dropout.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = (_linear(*each) for each in zip(weights, biases, strict=True))
        self.out_proj = _linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(
        self, query_BLW: Tensor, key_BLW: Tensor, value_BLW: Tensor, *, need_weights: bool, attn_mask: Tensor | None
    ) -> tuple[Tensor, None]:
        """Return what `nn.MultiheadAttention` does; `attn_mask` is added, (L, L) or (B * heads, L, L)."""
        query, key, value = (
            project(x_BLW).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project, x_BLW in ((self.q_proj, query_BLW), (self.k_proj, key_BLW), (self.v_proj, value_BLW))
        )
        if attn_mask is not None:
            attn_mask = attn_mask.to(query.dtype)
            if attn_mask.ndim == 3:
                attn_mask = attn_mask.reshape(-1, self.num_heads, *attn_mask.shape[1:])
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None


def load_lora_text_tower(clip: ClipConfig, lora: LoraConfig) -> LoraTextTower:
    """Return the text tower of a CLIP model with new adapters, on the CPU.

    Raises:
        UserError: as `hvlm.encoders.text.load_text_network`, or a tower without the layers of `lora.target_modules`.
    """
    network, spec = load_text_network(clip)
    return LoraTextTower(network, spec.dim, lora)


def _with_adapters(network: nn.Module, config: LoraConfig) -> nn.Module:
    import peft  # with transformers it costs 2 CPU seconds and 80 MiB, which nobody else should pay

    for block in list(network.modules()):
        attention = getattr(block, "attn", None)
        if isinstance(attention, nn.MultiheadAttention):
            block.attn = SplitAttention(attention)
    layers = {name.rpartition(".")[2] for name, each in network.named_modules() if isinstance(each, nn.Linear)}
    absent = [name for name in config.target_modules if name not in layers]
    require(
        not absent,
        what="lora.target_modules",
        got=", ".join(absent),
        expected=f"layers of this text tower: {', '.join(sorted(layers))}",
        do="choose among them, or another CLIP model",
    )
    adapters = peft.LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.target_modules),
    )
    adapted: nn.Module = peft.inject_adapter_in_model(adapters, network)
    return adapted


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    linear.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return linear


def _sha256(network: nn.Module) -> bytes:
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy())
    return digest.digest()


def _leave_out_base(tower: LoraTextTower, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    for name in tower.base_names:
        del state[f"{prefix}network.{name}"]


def _check_base(tower: LoraTextTower, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Put the tower's own weights beside adapters that belong to it; without a hash, loading names it as missing."""
    given = state.get(f"{prefix}base_sha256")
    if given is None:
        return
    wanted, own = (bytes(each.tolist()).hex()[:12] for each in (given, tower.base_sha256))
    if wanted != own:
        raise UserError(
            what="the text tower of text.encoder",
            got=f"weights {own}",
            expected=f"weights {wanted}, on which the adapters of the checkpoint were trained",
            do="set text.encoder to that model and weights file",
        )
    weights = tower.network.state_dict()
    state |= {f"{prefix}network.{name}": weights[name] for name in tower.base_names}
