"""Networks that are not trained: merged while loading, or added and switched, from files in any key format."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from toolkit.config.key_names import KeyNames
from toolkit.models.family import Trainable
from toolkit.models.parts import Parts, Plan
from toolkit.models.quantize import Quantization
from toolkit.models.quantized_cache import QuantizedCache
from toolkit.models.source import Source
from toolkit.networks.attached import attach, change, merge_at_load, network_file
from toolkit.networks.keys.codec import Codec

CPU = torch.device("cpu")
FLUX = Trainable("transformer", blocks=r".*", prefix="transformer.")
LAYERS = ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.proj_out", "proj_out")
NATIVE = {
    "lora": {"lora_A.weight": (2, 48), "lora_B.weight": (32, 2)},
    "diff": {"diff": (32, 48)},
    "loha": {"hada_w1_a": (32, 2), "hada_w1_b": (2, 48), "hada_w2_a": (32, 2), "hada_w2_b": (2, 48)},
    "lokr": {"lokr_w1": (4, 4), "lokr_w2": (8, 12)},
    "lokr factors": {"lokr_w1": (4, 4), "lokr_w2_a": (8, 2), "lokr_w2_b": (2, 12)},
    "dora": {"lora_A.weight": (2, 48), "lora_B.weight": (32, 2), "lora_magnitude_vector": (32,)},
}


def draw(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) + 0.1 for name, shape in shapes.items()}


def transformer(folder: Path) -> Any:
    return Source(str(folder)).load("transformer", torch.float32)


@pytest.fixture
def lora(tiny_flux: Path) -> dict[str, Tensor]:
    """A LoRA of rank 2 with native names."""
    module, found = transformer(tiny_flux), {}
    for name in LAYERS:
        rows, columns = module.get_submodule(name).weight.shape
        drawn = draw({"lora_A.weight": (2, columns), "lora_B.weight": (rows, 2)})
        found |= {f"transformer.{name}.{suffix}": tensor for suffix, tensor in drawn.items()}
    return found


def merged_by_hand(folder: Path, lora: dict[str, Tensor], strength: float = 1.0) -> Any:
    module = transformer(folder)
    for name in LAYERS:
        update = lora[f"transformer.{name}.lora_B.weight"] @ lora[f"transformer.{name}.lora_A.weight"]
        module.get_submodule(name).weight += strength * update
    return module


def predict(module: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return module(
            hidden_states=torch.randn(1, 6, 16, generator=generator),
            timestep=torch.tensor([0.5]),
            guidance=torch.ones(1),
            pooled_projections=torch.randn(1, 64, generator=generator),
            encoder_hidden_states=torch.randn(1, 3, 96, generator=generator),
            txt_ids=torch.zeros(3, 3),
            img_ids=torch.zeros(6, 3),
        ).sample


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
def test_a_merged_network_is_in_the_weights(tiny_flux: Path, tmp_path: Path, lora: dict[str, Tensor], format: str):
    file = tmp_path / "lora.safetensors"
    save_file(Codec(KeyNames(), FLUX.prefix, format).encode(lora), file)
    parts = Parts(Source(str(tiny_flux)), CPU, torch.float32)
    merge_at_load(parts, [FLUX], KeyNames(), str(file), strength=0.5)
    wanted = merged_by_hand(tiny_flux, lora, 0.5).state_dict()
    for _ in range(2):  # once per load
        with parts.using("transformer"):
            for name, tensor in parts["transformer"].state_dict().items():
                torch.testing.assert_close(tensor, wanted[name])


def test_of_a_file_for_two_experts_each_gets_its_own(tmp_path: Path):
    experts = [Trainable(part, r".*", "transformer.") for part in ("transformer", "transformer_2")]
    stems = {f"diffusion_model.transformer_{n}.proj.lora_{side}.weight": n for n in (1, 2) for side in "AB"}
    save_file({stem: n * torch.eye(2) for stem, n in stems.items()}, tmp_path / "x.safetensors")
    modules = {one: nn.Sequential() for one in experts}
    for module in modules.values():
        module.proj = nn.Linear(2, 2, bias=False).requires_grad_(False)
    before = [module.proj(torch.ones(1, 2)) for module in modules.values()]
    attach(modules, KeyNames(), str(tmp_path / "x.safetensors"))
    for n, module, plain in zip((1, 4), modules.values(), before, strict=True):
        torch.testing.assert_close(module.proj(torch.ones(1, 2)), plain + n)


def test_it_is_merged_before_the_weights_are_quantized_and_kept(
    tiny_flux: Path, tmp_path: Path, lora: dict[str, Tensor]
):
    file = tmp_path / "lora.safetensors"
    save_file(lora, file)
    plan, cache = Plan(Quantization("qint8")), QuantizedCache(tmp_path)

    def made(*strengths: float) -> Tensor:
        parts = Parts(Source(str(tiny_flux)), CPU, torch.float32, plans={"transformer": plan}, cache=cache)
        for strength in strengths:
            merge_at_load(parts, [FLUX], KeyNames(), str(file), strength)
        with parts.using("transformer"):
            return parts["transformer"].get_submodule(LAYERS[0]).weight.dequantize().clone()

    plain, half, whole = made(), made(0.5), made(1.0)
    wanted = merged_by_hand(tiny_flux, lora).get_submodule(LAYERS[0]).weight
    assert (whole - wanted).abs().max() < 0.02 * wanted.abs().max()
    assert not torch.equal(plain, whole) and not torch.equal(half, whole)
    assert len(list((tmp_path / "quantized").iterdir())) == 3
    assert torch.equal(made(1.0), whole) and torch.equal(made(), plain)


def test_an_attached_network_acts_as_if_merged_and_can_be_switched(
    tiny_flux: Path, tmp_path: Path, lora: dict[str, Tensor]
):
    file = tmp_path / "lora.safetensors"
    save_file(lora, file)
    module = transformer(tiny_flux)
    plain, keys = predict(module), set(module.state_dict())
    (network,) = attach({FLUX: module}, KeyNames(), str(file))
    whole, half = (predict(merged_by_hand(tiny_flux, lora, strength)) for strength in (1.0, 0.5))
    torch.testing.assert_close(predict(module), whole)
    with network.scaled(0):
        assert torch.equal(predict(module), plain)
        with network.scaled(0.5):
            torch.testing.assert_close(predict(module), half)
    torch.testing.assert_close(predict(module), whole)
    assert set(module.state_dict()) == keys
    network.remove()
    assert torch.equal(predict(module), plain)


@pytest.mark.parametrize("kind", [kind for kind in NATIVE if kind != "dora"])
def test_every_type_of_network_acts_as_if_merged(tmp_path: Path, kind: str):
    tensors = draw(NATIVE[kind])
    file = tmp_path / "network.safetensors"
    save_file({f"transformer.layer.{suffix}": tensor for suffix, tensor in tensors.items()}, file)
    module = nn.Module()
    module.layer = nn.Linear(48, 32)
    x = torch.randn(3, 48)
    wanted = functional.linear(x, module.layer.weight + change(tensors, (32, 48)), module.layer.bias)
    attach({FLUX: module}, KeyNames(), str(file))
    torch.testing.assert_close(module.layer(x), wanted)


def test_changes_are_those_of_the_definitions():
    lokr, loha = draw(NATIVE["lokr"]), draw(NATIVE["loha"])
    assert torch.equal(change(lokr, (32, 48)), torch.kron(lokr["lokr_w1"], lokr["lokr_w2"]))
    wanted = (loha["hada_w1_a"] @ loha["hada_w1_b"]) * (loha["hada_w2_a"] @ loha["hada_w2_b"])
    assert torch.equal(change(loha, (32, 48)), wanted)
    with pytest.raises(ValueError, match="a network with lokr_t2, lokr_w1 is not read"):
        change({"lokr_t2": torch.ones(1), "lokr_w1": torch.ones(1)}, (1, 1))


def test_a_convolution_is_adapted_too(tmp_path: Path):
    tensors = draw({"lora_A.weight": (2, 4, 3, 3), "lora_B.weight": (8, 2, 1, 1)})
    file = tmp_path / "network.safetensors"
    save_file({f"transformer.layer.{suffix}": tensor for suffix, tensor in tensors.items()}, file)
    module = nn.Module()
    module.layer = nn.Conv2d(4, 8, 3, stride=2, padding=1)
    x = torch.randn(2, 4, 9, 9)
    weight = module.layer.weight + change(tensors, (8, 4, 3, 3))
    wanted = functional.conv2d(x, weight, module.layer.bias, stride=2, padding=1)
    attach({FLUX: module}, KeyNames(), str(file))
    torch.testing.assert_close(module.layer(x), wanted)


def test_a_dora_is_merged_or_added(tiny_flux: Path, tmp_path: Path):
    weight = transformer(tiny_flux).get_submodule(LAYERS[0]).weight
    rows, columns = weight.shape
    tensors = draw({"lora_A.weight": (2, columns), "lora_B.weight": (rows, 2), "lora_magnitude_vector": (rows,)})
    file = tmp_path / "dora.safetensors"
    save_file({f"transformer.{LAYERS[0]}.{suffix}": tensor for suffix, tensor in tensors.items()}, file)
    whole = weight + tensors["lora_B.weight"] @ tensors["lora_A.weight"]
    wanted = tensors["lora_magnitude_vector"][:, None] * whole / whole.norm(dim=1, keepdim=True)
    parts = Parts(Source(str(tiny_flux)), CPU, torch.float32)
    merge_at_load(parts, [FLUX], KeyNames(), str(file))
    with parts.using("transformer"):
        torch.testing.assert_close(parts["transformer"].get_submodule(LAYERS[0]).weight.data, wanted.detach())
    module = transformer(tiny_flux)
    layer = module.get_submodule(LAYERS[0])
    x = torch.randn(2, columns)
    before = layer(x)
    (network,) = attach({FLUX: module}, KeyNames(), str(file))
    torch.testing.assert_close(layer(x), before + x @ (wanted - weight).T, rtol=1e-4, atol=1e-4)
    # half of the way from the frozen layer to the trained one, as in training
    with network.scaled(0.5):
        torch.testing.assert_close(layer(x), before + 0.5 * x @ (wanted - weight).T, rtol=1e-4, atol=1e-4)


def test_weights_and_biases_of_linear_layers_and_convolutions(tmp_path: Path):
    file = tmp_path / "diff.safetensors"
    for layer, x in ((nn.Linear(4, 6), torch.randn(2, 3, 4)), (nn.Conv2d(4, 6, 3, padding=1), torch.randn(2, 4, 5, 5))):
        whole, bias = torch.randn(layer.weight.shape), torch.randn(6)
        save_file({"transformer.layer.diff": whole, "transformer.layer.diff_b": bias}, file)
        module = nn.Module()
        module.layer = layer
        attach({FLUX: module}, KeyNames(), str(file), strength=0.5)
        changed = deepcopy(layer)
        changed._forward_hooks.clear()
        changed.weight.data += 0.5 * whole
        changed.bias.data += 0.5 * bias
        torch.testing.assert_close(layer(x), changed(x), rtol=1e-4, atol=1e-4)


def test_a_network_of_another_model_is_refused(tiny_flux: Path, tmp_path: Path):
    file = tmp_path / "lora.safetensors"
    save_file({"unet.mid.to_q.lora_A.weight": torch.ones(2, 2), "unet.mid.to_q.lora_B.weight": torch.ones(2, 2)}, file)
    parts = Parts(Source(str(tiny_flux)), CPU, torch.float32)
    with pytest.raises(ValueError):
        merge_at_load(parts, [FLUX], KeyNames(), str(file))
    with pytest.raises(ValueError):
        attach({FLUX: transformer(tiny_flux)}, KeyNames(), str(file))


def test_the_file_of_a_folder(tmp_path: Path):
    file = tmp_path / "one.safetensors"
    file.touch()
    assert network_file(str(tmp_path)) == network_file(str(file)) == file
    (tmp_path / "two.safetensors").touch()
    with pytest.raises(ValueError, match=r"holds 2 \.safetensors files: name one"):
        network_file(str(tmp_path))
    with pytest.raises(ValueError, match=r"owner/adapter: pytorch_lora_weights\.safetensors is not in the cache"):
        network_file("owner/adapter")


def test_it_stays_with_the_layers_that_a_trained_network_wraps(
    tiny_flux: Path, tmp_path: Path, lora: dict[str, Tensor]
):
    from peft import LoraConfig, inject_adapter_in_model

    file = tmp_path / "lora.safetensors"
    save_file(lora, file)
    module: FluxTransformer2DModel = transformer(tiny_flux)
    (network,) = attach({FLUX: module}, KeyNames(), str(file))
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["to_q", "proj_out"]), module)
    torch.testing.assert_close(predict(module), predict(merged_by_hand(tiny_flux, lora)))
    with network.scaled(0):
        torch.testing.assert_close(predict(module), predict(transformer(tiny_flux)))
