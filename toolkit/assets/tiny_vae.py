"""The VAE of the embedded model: the real `AutoencoderKL`, small, trained in minutes on pictures that we draw.

Called by `scripts/build_tiny_flux.py`. It learns any colors and overlaps, not only the small world, as a VAE knows more
pictures than a denoiser has words for: what a LoRA teaches later must pass through it.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image, ImageDraw
from torch import nn

from toolkit.assets import shapes

LEARNING_RATE = 1.5e-3
KL_WEIGHT = 1e-3
BATCH = 8
STRIDE = 4
LATENT_SIDE = shapes.SIDE // STRIDE

Pictures = torch.Tensor
"""[B, 3, H, W] in 0..255, whole numbers."""

Report = Callable[[str], None]


def new_vae() -> AutoencoderKL:
    """An untrained VAE that makes 8 x 16 x 16 latents of a 64 x 64 picture."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=8,
        # One group: with few channels per group, normalizing a flat picture would wipe its color out.
        norm_num_groups=1,
        sample_size=shapes.SIDE,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
    )
    # Begins almost without noise on the latents; else the first steps see little but noise.
    nn.init.constant_(vae.encoder.conv_out.bias[vae.config.latent_channels :], -4.0)
    return vae


def scribble(rng: Random) -> Image.Image:
    """Up to five shapes of any color, anywhere."""
    canvas = shapes.blank(any_color(rng))
    for _ in range(rng.randint(1, 5)):
        center = (rng.uniform(6, shapes.SIDE - 6), rng.uniform(6, shapes.SIDE - 6))
        shapes.paint(canvas, rng.choice(shapes.SHAPES), center, rng.uniform(2, 20), any_color(rng))
    return canvas.reduce(shapes.SCALE)


def any_color(rng: Random) -> tuple[int, int, int]:
    """A color from the whole cube."""
    return rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255)


def doodle(rng: Random) -> Image.Image:
    """A body of a few shapes in one color, with dots and strokes in another: finer things than scribbles hold."""
    canvas, body, ink = shapes.blank(any_color(rng)), any_color(rng), any_color(rng)
    for half in (rng.uniform(10, 22), rng.uniform(4, 12), rng.uniform(4, 12)):
        center = (rng.uniform(18, 46), rng.uniform(18, 46))
        shapes.paint(canvas, rng.choice(shapes.SHAPES), center, half, body)
    for _ in range(rng.randint(2, 6)):
        shapes.paint(canvas, "circle", (rng.uniform(12, 52), rng.uniform(12, 52)), rng.uniform(1.5, 5), ink)
    for _ in range(rng.randint(0, 2)):
        left, top, size, start = (rng.uniform(low, high) for low, high in ((8, 46), (8, 46), (5, 24), (0, 360)))
        box = [side * shapes.SCALE for side in (left, top, left + size, top + size)]
        width = round(rng.uniform(1, 3) * shapes.SCALE)
        ImageDraw.Draw(canvas).arc(box, start, start + rng.uniform(60, 360), fill=ink, width=width)
    return canvas.reduce(shapes.SCALE)


def training_pictures(count: int, seed: int) -> Pictures:
    """Half pictures of the small world, half scribbles: what the whole VAE begins with."""
    return stacked([*world(count // 2, seed), *(scribble(Random(f"{seed}/scribble/{i}")) for i in range(count // 2))])


def finer_pictures(count: int, seed: int) -> Pictures:
    """A third each of the small world, scribbles and doodles: what the decoder is sharpened on."""
    part = count // 3
    scribbles = (scribble(Random(f"{seed}/scribble/{i}")) for i in range(part))
    doodles = (doodle(Random(f"{seed}/doodle/{i}")) for i in range(part))
    return stacked([*world(part, seed), *scribbles, *doodles])


def world(count: int, seed: int) -> Iterator[Image.Image]:
    """Pictures of the small world, every kind in turn."""
    for i, spec in enumerate(islice(cycle(shapes.all_specs()), count)):
        yield shapes.draw(spec, Random(f"{seed}/world/{i}"))


def stacked(pictures: Sequence[Image.Image]) -> Pictures:
    """One tensor of many pictures."""
    return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures])


def as_floats(pictures: Pictures) -> torch.Tensor:
    """From 0..255 to -1..1."""
    return pictures.float() / 127.5 - 1


def train_vae(vae: AutoencoderKL, pictures: Pictures, num_steps: int, seed: int, report: Report) -> None:
    """Fit the whole VAE: absolute and squared error, and a little KL so that latents are smooth."""

    def losses() -> Iterator[torch.Tensor]:
        draws = torch.Generator().manual_seed(seed)
        for batch in picture_batches(pictures, num_steps, seed):
            posterior = vae.encode(batch).latent_dist
            error = vae.decode(posterior.sample(draws)).sample - batch
            kl = posterior.kl().mean() / posterior.mean[0].numel()
            yield error.abs().mean() + error.square().mean() + KL_WEIGHT * kl

    vae.to(memory_format=torch.channels_last).requires_grad_(True).train()
    fit(vae, losses(), num_steps, report)
    vae.eval().requires_grad_(False)


def train_decoder(vae: AutoencoderKL, pictures: Pictures, num_steps: int, seed: int, report: Report) -> None:
    """Sharpen the decoder alone; latents stay as they are, so a denoiser that was trained on them stays right."""
    moments = torch.cat([vae.encode(as_floats(part)).latent_dist.parameters for part in pictures.split(32)])

    def losses() -> Iterator[torch.Tensor]:
        draws = torch.Generator().manual_seed(seed)
        for rows, top, left, side, _ in windows(len(pictures), LATENT_SIDE, num_steps, seed):
            part = moments[rows, :, top : top + side, left : left + side]
            latents = DiagonalGaussianDistribution(part).sample(draws)
            wanted = as_floats(pictures[rows])
            wanted = wanted[:, :, top * STRIDE : (top + side) * STRIDE, left * STRIDE : (left + side) * STRIDE]
            error = vae.decode(latents.contiguous(memory_format=torch.channels_last)).sample - wanted
            yield error.abs().mean() + error.square().mean()

    vae.to(memory_format=torch.channels_last).train()
    vae.decoder.requires_grad_(True)
    fit(vae.decoder, losses(), num_steps, report)
    vae.eval().requires_grad_(False)


def picture_batches(pictures: Pictures, num_steps: int, seed: int) -> Iterator[torch.Tensor]:
    """Batches of whole pictures or quarters in -1..1, at random turned."""
    for rows, top, left, side, turns in windows(len(pictures), shapes.SIDE, num_steps, seed):
        part = as_floats(pictures[rows])[:, :, top : top + side, left : left + side]
        yield torch.rot90(part, turns, (2, 3)).contiguous(memory_format=torch.channels_last)


def windows(count: int, side: int, num_steps: int, seed: int) -> Iterator[tuple[torch.Tensor, int, int, int, int]]:
    """Which rows of the data each step sees, which square of them, and how turned: (rows, top, left, side, turns).

    For the first three fourths of the steps it is a quarter of the picture, which costs a fourth.
    """
    rng = torch.Generator().manual_seed(seed)
    for step in range(num_steps):
        part = side // 2 if step < num_steps * 3 / 4 else side
        rows = torch.randint(count, (BATCH,), generator=rng)
        top, left = torch.randint(0, side - part + 1, (2,), generator=rng).tolist()
        yield rows, top, left, part, int(torch.randint(0, 4, (), generator=rng))


def fit(module: nn.Module, losses: Iterator[torch.Tensor], num_steps: int, report: Report) -> None:
    """Step after step down each loss; the next one is computed after the step."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, num_steps))
    started = time.monotonic()
    for step, loss in enumerate(losses, start=1):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == num_steps:
            report(f"{step}/{num_steps} loss {loss:.4f}, {(time.monotonic() - started) / step:.2f} s/step")


def rate_factor(step: int, num_steps: int) -> float:
    """Short warm-up, then a cosine down to nothing."""
    return min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / num_steps))


@torch.no_grad()
def measure_latents(vae: AutoencoderKL, pictures: Pictures) -> None:
    """Write into the config what brings the latents of these pictures to mean 0 and deviation 1."""
    latents = torch.cat([vae.encode(as_floats(part)).latent_dist.mean for part in pictures.split(32)])
    vae.register_to_config(shift_factor=latents.mean().item(), scaling_factor=1 / latents.std().item())
