"""OmniGen2's denoiser, which diffusers does not have: Wu et al. (2025), https://arxiv.org/abs/2506.18871.

Written from the paper and the published configuration; the names of the weights are those of the checkpoint
`OmniGen2/OmniGen2`. The blocks are those of Lumina-Image 2.0 in diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.normalization import LuminaLayerNormContinuous, RMSNorm
from diffusers.models.transformers.transformer_lumina2 import Lumina2TransformerBlock
from einops import rearrange
from torch import Tensor, nn

MAX_REFERENCES = 5
THETA = 10_000.0


class TimeAndCaption(nn.Module):
    """Time [B] in 0..1 and text [B, L, T] -> embeddings [B, min(D, 1024)] and [B, L, D]."""

    def __init__(self, width: int, text_width: int, eps: float, time_scale: float) -> None:
        super().__init__()
        self.time_proj = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0.0, scale=time_scale)
        self.timestep_embedder = TimestepEmbedding(256, min(width, 1024))
        self.caption_embedder = nn.Sequential(RMSNorm(text_width, eps=eps), nn.Linear(text_width, width))

    def forward(self, time: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Both embeddings."""
        return self.timestep_embedder(self.time_proj(time).to(text.dtype)), self.caption_embedder(text)


class OmniGen2Transformer2DModel(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Text, reference pictures and the noisy picture, refined apart and then attending to each other."""

    _supports_gradient_checkpointing = True
    _no_split_modules = ["Lumina2TransformerBlock"]
    _repeated_blocks = ["Lumina2TransformerBlock"]

    @register_to_config
    def __init__(
        self,
        patch_size: int = 2,
        in_channels: int = 16,
        out_channels: int | None = None,
        hidden_size: int = 2520,
        num_layers: int = 32,
        num_refiner_layers: int = 2,
        num_attention_heads: int = 21,
        num_kv_heads: int = 7,
        multiple_of: int = 256,
        ffn_dim_multiplier: float | None = None,
        norm_eps: float = 1e-5,
        axes_dim_rope: tuple[int, int, int] = (40, 40, 40),
        axes_lens: tuple[int, int, int] = (1024, 1664, 1664),
        text_feat_dim: int = 2048,
        timestep_scale: float = 1000.0,
    ) -> None:
        super().__init__()
        patch, answer = patch_size**2 * in_channels, patch_size**2 * (out_channels or in_channels)

        def blocks(count: int, modulation: bool = True) -> nn.ModuleList:
            sizes = (hidden_size, num_attention_heads, num_kv_heads, multiple_of, ffn_dim_multiplier, norm_eps)
            return nn.ModuleList(Lumina2TransformerBlock(*sizes, modulation=modulation) for _ in range(count))

        self.x_embedder = nn.Linear(patch, hidden_size)
        self.ref_image_patch_embedder = nn.Linear(patch, hidden_size)
        self.time_caption_embed = TimeAndCaption(hidden_size, text_feat_dim, norm_eps, timestep_scale)
        self.noise_refiner = blocks(num_refiner_layers)
        self.ref_image_refiner = blocks(num_refiner_layers)
        self.context_refiner = blocks(num_refiner_layers, modulation=False)
        self.layers = blocks(num_layers)
        self.norm_out = LuminaLayerNormContinuous(
            hidden_size, min(hidden_size, 1024), elementwise_affine=False, eps=1e-6, out_dim=answer
        )
        self.image_index_embedding = nn.Parameter(torch.randn(MAX_REFERENCES, hidden_size) * 0.02)
        self.gradient_checkpointing = False

    def forward(
        self, noisy: Tensor, time: Tensor, text: Tensor, text_mask: Tensor, references: Sequence[Tensor] = ()
    ) -> Tensor:
        """The velocity from noise to data, [B, C, h, w].

        `time` [B] is 0 for noise and 1 for data, `text` [B, L, T], `text_mask` [B, L] bool, true for tokens;
        `references` [B, C, h_i, w_i], at most MAX_REFERENCES.
        """
        p = self.config.patch_size
        temb, words = self.time_caption_embed(time, text)
        lengths = text_mask.sum(dim=1)
        text_ids = torch.arange(text.shape[1], device=text.device).view(1, -1, 1).expand(len(text), -1, 3)
        picture_ids = _picture_ids([(x.shape[-2] // p, x.shape[-1] // p) for x in (*references, noisy)], lengths)
        ropes = [self._rope(ids) for ids in (text_ids, *picture_ids)]

        words = self._run(self.context_refiner, words, text_mask, ropes[0])
        picture = self._run(self.noise_refiner, self.x_embedder(self._patches(noisy)), None, ropes[-1], temb)
        parts = [words, picture]
        if references:
            shown = self._embed_references(references)
            parts.insert(1, self._run(self.ref_image_refiner, shown, None, torch.cat(ropes[1:-1], dim=1), temb))
        joint = torch.cat(parts, dim=1)
        seen = torch.nn.functional.pad(text_mask, (0, joint.shape[1] - text.shape[1]), value=True)
        joint = self._run(self.layers, joint, seen, torch.cat(ropes, dim=1), temb)

        answer = self.norm_out(joint[:, -picture.shape[1] :], temb)
        return rearrange(answer, "b (h w) (p q c) -> b c (h p) (w q)", h=noisy.shape[-2] // p, p=p, q=p)

    def _patches(self, latents: Tensor) -> Tensor:
        p = self.config.patch_size
        return rearrange(latents, "b c (h p) (w q) -> b (h w) (p q c)", p=p, q=p)

    def _embed_references(self, references: Sequence[Tensor]) -> Tensor:
        """Tokens of all references, each with the mark of its place in the list."""
        tokens = [self.ref_image_patch_embedder(self._patches(reference)) for reference in references]
        return torch.cat([x + self.image_index_embedding[index] for index, x in enumerate(tokens)], dim=1)

    def _run(self, blocks: nn.ModuleList, x: Tensor, mask: Tensor | None, rope: Tensor, *temb: Tensor) -> Tensor:
        for block in blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x = self._gradient_checkpointing_func(block, x, mask, rope, *temb)
            else:
                x = block(x, mask, rope, *temb)
        return x

    def _rope(self, ids: Tensor) -> Tensor:
        """Position ids [B, L, 3] -> rotations [B, L, head / 2] as complex numbers (Su et al., 2021)."""
        angles = []
        for axis, size in enumerate(self.config.axes_dim_rope):
            powers = torch.arange(0, size, 2, dtype=torch.float32, device=ids.device) / size
            angles.append(ids[..., axis, None].float() * THETA**-powers)
        joined = torch.cat(angles, dim=-1)
        return torch.polar(torch.ones_like(joined), joined)


def _picture_ids(sizes: Sequence[tuple[int, int]], lengths: Tensor) -> list[Tensor]:
    """Position ids [B, h w, 3] of pictures of h x w tokens behind texts of `lengths` [B].

    The first id is the same for all tokens of a picture: where the text ends, moved on by the longer side of every
    picture before it.
    """
    found = []
    start = lengths
    for rows, columns in sizes:
        ids = torch.zeros(len(lengths), rows, columns, 3, dtype=torch.long, device=lengths.device)
        ids[..., 0] = start.view(-1, 1, 1)
        ids[..., 1] = torch.arange(rows, device=lengths.device)[:, None]
        ids[..., 2] = torch.arange(columns, device=lengths.device)
        found.append(rearrange(ids, "b h w d -> b (h w) d"))
        start = start + max(rows, columns)
    return found
