"""Offloaded layers compute exactly the same, forwards and backwards, with no more than two of them on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from toolkit.models.offload import RING, LayerStream, compute_device, offload, repeated_layers, spread
from toolkit.models.quantize import Quantization, quantize
from toolkit.models.wrapped import is_wrapper

CPU = torch.device("cpu")
LAYERS = 7


def transformer() -> Any:
    """Three double and four single blocks, frozen."""
    torch.manual_seed(0)
    module = FluxTransformer2DModel(
        in_channels=16,
        num_layers=3,
        num_single_layers=LAYERS - 3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    for param in module.parameters():
        nn.init.normal_(param, std=0.1)
    return module.requires_grad_(False).eval()


def predict(module: Any, noisy: Tensor) -> Tensor:
    """The output for fixed inputs; `noisy` [B, L, C]."""
    draw = torch.Generator().manual_seed(1)
    count = noisy.shape[1]
    return module(
        hidden_states=noisy,
        timestep=torch.tensor([0.3, 0.8]),
        pooled_projections=torch.randn(2, 32, generator=draw),
        encoder_hidden_states=torch.randn(2, 5, 32, generator=draw),
        txt_ids=torch.zeros(5, 3),
        img_ids=torch.arange(count)[:, None].expand(count, 3).float(),
        return_dict=False,
    )[0]


def gradients(module: Any, steps: int = 1) -> dict[str, Tensor]:
    """Output and gradients of a few training steps of the network in `module`."""
    torch.manual_seed(2)
    trained = {name: param for name, param in module.named_parameters() if param.requires_grad}
    noisy = torch.randn(2, 12, 16, requires_grad=True)
    for _ in range(steps):
        out = predict(module, noisy)
        out.square().mean().backward()
    assert noisy.grad is not None
    found = {name: param.grad for name, param in trained.items() if param.grad is not None}
    assert len(found) == len(trained)
    return {"out": out.detach(), "noisy": noisy.grad, **found}


def with_lora(module: Any) -> Any:
    """A network whose update is not zero."""
    torch.manual_seed(3)
    config = LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_k", "proj_mlp", "proj_out"])
    inject_adapter_in_model(config, module)
    for name, param in module.named_parameters():
        param.requires_grad_(".lora_" in name)
    return module


def stream_of(module: nn.Module) -> LayerStream:
    stream = module.layer_stream
    assert isinstance(stream, LayerStream)
    return stream


def watched(module: Any, look: Callable[[LayerStream], None]) -> Any:
    """Call `look` whenever a Linear layer of an offloaded module has computed, forwards or again for the backward."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda *_: look(stream_of(module)))
    return module


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


@pytest.mark.parametrize(
    ("qtype", "checkpointing", "share"),
    [
        (None, True, 1.0),
        (None, True, 0.4),
        (None, False, 1.0),
        (None, False, 0.4),
        ("qfloat8", True, 1.0),
        ("qint8", False, 1.0),
        ("qint4", True, 0.4),
    ],
)
def test_predictions_and_gradients_are_exactly_equal(qtype: str | None, checkpointing: bool, share: float):
    plain, streamed = transformer(), transformer()
    for module in (plain, streamed):
        if qtype is not None:
            quantize(module, Quantization(qtype))
        if checkpointing:
            module.enable_gradient_checkpointing()
    counts: list[int] = []
    streamed = watched(offload(streamed, CPU, share), lambda stream: counts.append(len(stream.live)))
    plain, streamed = with_lora(plain), with_lora(streamed)
    for module in (plain, streamed):
        module.train()  # diffusers recomputes only in training
    assert_equal(gradients(streamed, steps=2), gradients(plain, steps=2))

    stream = stream_of(streamed)
    assert len(stream.layers) == len(spread(LAYERS, share))
    assert max(counts) == RING == len(set(stream.live))
    assert all(stream_is_at_rest(packed) for packed in stream._packed)


def stream_is_at_rest(packed: Any) -> bool:
    """Whether a layer holds the parameters in CPU memory."""
    return all(
        part._parameters[name] is param for (part, name), param in zip(packed.places, packed.on_host, strict=True)
    )


@pytest.mark.parametrize("checkpointing", [True, False])
def test_every_copy_but_the_first_is_foreseen(checkpointing: bool):
    module = transformer().train()
    if checkpointing:
        module.enable_gradient_checkpointing()
    streamed = with_lora(offload(module, CPU, 1.0))
    gradients(streamed, steps=3)
    stream = stream_of(streamed)
    assert stream.late == 1
    # forwards all layers, backwards all but the two that are still there; the next step finds the first two
    assert stream.copies == LAYERS + (LAYERS - RING) + 2 * 2 * (LAYERS - RING)


def test_sampling_goes_round_and_round():
    streamed = offload(transformer(), CPU, 1.0)
    wanted = transformer()
    noisy = torch.randn(2, 12, 16)
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(predict(streamed, noisy), predict(wanted, noisy))
    assert stream_of(streamed).late == 3  # an odd number of layers meets itself in the ring: the first is not foreseen


def test_a_pass_that_fails_leaves_the_layers_at_rest():
    streamed = offload(transformer(), CPU, 1.0)

    def fail(*_: object) -> None:
        raise ArithmeticError

    handle = streamed.transformer_blocks[1].ff.register_forward_hook(fail)
    with pytest.raises(ArithmeticError):
        predict(streamed, torch.randn(2, 12, 16))
    assert all(stream_is_at_rest(packed) for packed in stream_of(streamed)._packed)
    handle.remove()
    noisy = torch.randn(2, 12, 16)
    assert torch.equal(predict(streamed, noisy), predict(transformer(), noisy))


def test_weights_read_from_outside_are_right_and_share_one_memory():
    plain, streamed = transformer(), offload(transformer(), CPU, 1.0)
    predict(streamed, torch.randn(2, 12, 16))
    for name, weight in plain.state_dict().items():
        assert torch.equal(streamed.state_dict()[name], weight), name
    block = streamed.transformer_blocks[0]
    assert len({param.untyped_storage().data_ptr() for param in block.parameters()}) == 1


def test_a_layer_that_is_trained_is_an_error():
    streamed = offload(transformer(), CPU, 0.5)
    streamed.requires_grad_(True)
    with pytest.raises(ValueError, match=r"layer_offloading: only frozen layers"):
        predict(streamed, torch.randn(2, 12, 16))


def test_the_ring_takes_two_layers():
    stream = stream_of(offload(transformer(), CPU, 1.0))
    largest = max(sum(param.nbytes for param in layer.parameters()) for layer in stream.layers)
    assert RING * largest <= stream.device_bytes < RING * (largest + 100 * 512)


@pytest.mark.parametrize(
    ("count", "share", "wanted"),
    [
        (8, 1.0, list(range(8))),
        (8, 0.0, []),
        (8, 0.5, [1, 3, 5, 7]),
        (8, 0.25, [3, 7]),
        (3, 0.01, [2]),
        (10, 0.7, [1, 2, 4, 5, 7, 8, 9]),
    ],
)
def test_the_share_is_spread_evenly(count: int, share: float, wanted: list[int]):
    assert spread(count, share) == wanted


def test_nothing_to_offload_just_moves():
    module = offload(transformer(), CPU, 0.0)
    assert not hasattr(module, "layer_stream") and compute_device(module) == CPU
    assert compute_device(offload(transformer(), CPU, 1.0)) == CPU


def test_the_repeated_blocks_of_the_class_are_what_is_streamed():
    module = transformer()
    assert repeated_layers(module) == [*module.transformer_blocks, *module.single_transformer_blocks]
    plain = nn.Sequential(nn.ModuleList([nn.Sequential(nn.Linear(2, 2))]), nn.Linear(2, 2))
    assert repeated_layers(plain) == [plain[0][0]]


def test_a_quantized_weight_stays_quantized():
    streamed = offload(quantize(transformer(), Quantization("qint4")), CPU, 1.0)
    seen: list[bool] = []
    layer = streamed.transformer_blocks[0].attn.to_q
    layer.register_forward_pre_hook(lambda module, _: seen.append(is_wrapper(module.weight)))
    predict(streamed, torch.randn(2, 12, 16))
    assert seen == [True]
