"""What every network type keeps: identity when fresh, learning, files, strength; and the formula of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from extensions_built_in.networks.lokr import KronLinear
from toolkit.config.plugins import load_plugin
from toolkit.context import Context
from toolkit.models.family import Trainable
from toolkit.models.source import Source
from toolkit.networks.adapter import Adapter
from toolkit.networks.keys.codec import Codec

TOY = Trainable("transformer", blocks=".*", prefix="transformer.")
UNET = Trainable("unet", blocks=r"(down_blocks|mid_block|up_blocks)\..*", prefix="unet.")
TYPES: dict[str, dict[str, Any]] = {
    "lora": {"linear": 3, "linear_alpha": 2, "conv": 2, "conv_alpha": 1},
    "locon": {"linear": 2, "conv_alpha": 1},
    "dora": {"linear": 2, "linear_alpha": 4, "conv": 2},
    "lokr": {"lokr_factor": 4},
    "lokr-low": {"type": "lokr", "lokr_full_rank": False, "linear": 1, "linear_alpha": 2, "conv": 1, "lokr_factor": 2},
    "loha": {"linear": 2, "linear_alpha": 4, "conv": 1},
    "fullrank": {},
    "mixed": {
        "type": "lora",
        "all_layers": True,
        "transformer_only": False,
        "network_kwargs": {"full_if_contains": "attn1.to_q"},
    },
}
RNG = torch.Generator().manual_seed(1)
X, TIMES, TEXT = torch.randn(2, 4, 4, 4, generator=RNG), torch.tensor([1, 500]), torch.randn(2, 3, 16, generator=RNG)


def unet() -> UNet2DConditionModel:
    """Attention, 1x1 and 3x3 convolutions; the same weights every time."""
    torch.manual_seed(0)
    return (
        UNet2DConditionModel(
            in_channels=4,
            out_channels=4,
            # quanto's kernels for bf16 on CPU crash on sizes below 16
            block_out_channels=(16, 32),
            layers_per_block=1,
            cross_attention_dim=16,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=8,
            norm_num_groups=8,
        )
        .eval()
        .requires_grad_(False)
    )


def predict(module: nn.Module) -> torch.Tensor:
    return module(X, TIMES, TEXT).sample


def build(name: str, module: nn.Module, trainable: Trainable = UNET, **more: Any) -> Adapter:
    options = {"type": name, **TYPES[name], **more}
    return load_plugin("networks", options["type"]).model_validate(options).build(module, trainable)


def train(module: nn.Module, network: Adapter, steps: int = 2) -> list[str]:
    """Some steps; returns the parameters that got no gradient in the last one."""
    optimizer = torch.optim.AdamW(network.param_groups(lr=0.05))
    dead: list[str] = []
    for _ in range(steps):
        optimizer.zero_grad()
        predict(module).float().square().mean().backward()
        dead = [name for name, param in network.params.items() if param.grad is None or not param.grad.any()]
        optimizer.step()
    return dead


@pytest.mark.parametrize("name", TYPES)
def test_a_network_starts_as_the_identity_learns_and_comes_back_from_its_file(name: str, tmp_path: Path):
    module = unet()
    with torch.no_grad():
        base = predict(module)
    network = build(name, module)
    with torch.no_grad():
        torch.testing.assert_close(predict(module), base, rtol=0, atol=1e-6)
    assert train(module, network) == []
    assert all(param.dtype == torch.float32 for param in network.params.values())
    file = tmp_path / "x.safetensors"
    with torch.no_grad():
        trained = predict(module)
        assert (trained - base).abs().max() > 1e-3
        with network.scaled(0):
            torch.testing.assert_close(predict(module), base, rtol=0, atol=1e-6)
        with network.scaled(0.5):
            halved = predict(module)
        assert not torch.allclose(halved, trained) and not torch.allclose(halved, base)
        torch.testing.assert_close(predict(module), trained, rtol=0, atol=0)

        network.write(file, torch.float32, network.header)
        again = unet()
        reader = build(name, again)
        assert reader.read(file) == []
        torch.testing.assert_close(predict(again), trained, rtol=1e-4, atol=1e-5)
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    assert header["network_type"] == TYPES[name].get("type", name).replace("locon", "lora")
    assert header["alpha_folded"] == "true" and header["key_format"] == "diffusers"
    assert not any(key.endswith("alpha") for key in load_file(file))


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("name", TYPES)
def test_it_works_on_narrow_and_on_quantized_weights(name: str, quantized: bool):
    from optimum import quanto

    torch.manual_seed(0)
    # quanto's kernels for bf16 on CPU crash on sizes below 16
    layers = nn.Conv2d(16, 32, 3), nn.GroupNorm(4, 32), nn.Conv2d(32, 16, 1), nn.Flatten(2), nn.Linear(16, 32)
    module = nn.Sequential(*layers).bfloat16()
    if quantized:
        quanto.quantize(module, weights=quanto.qint8, include=["4"])
        quanto.freeze(module)
        assert isinstance(module[4].weight, quanto.QTensor)
    x, context = torch.randn(2, 16, 6, 6), Context(torch.device("cpu"), torch.bfloat16, seed=1)
    with context.autocast(), torch.no_grad():
        base = module(x)
    network = build(name, module, TOY)
    assert len(network.updates) == (4 if name == "mixed" else 3)
    with context.autocast(), torch.no_grad():
        torch.testing.assert_close(module(x), base, rtol=0, atol=0)
    optimizer = torch.optim.AdamW(network.param_groups(0.05))
    for _ in range(2):
        optimizer.zero_grad()
        with context.autocast():
            loss = module(x).float().square().mean()
        loss.backward()
        optimizer.step()
    assert not [key for key, param in network.params.items() if not param.grad.any()]
    assert sum(param.grad is not None for param in module.parameters()) == len(network.params)
    with context.autocast(), torch.no_grad():
        assert not torch.allclose(module(x), base, atol=0.05)
        with network.scaled(0):
            torch.testing.assert_close(module(x), base, rtol=0, atol=0)
    assert {param.dtype for param in network.params.values()} == {torch.float32}


def linear(outputs: int = 8) -> tuple[nn.Module, Trainable]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, outputs)).requires_grad_(False), TOY


def randomize(network: Adapter) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(5)
    for param in network.params.values():
        param.data += 0.3 * torch.randn(param.shape, generator=rng)
    return {name.split(".", 1)[1]: param.detach() for name, param in network.params.items()}


def effective_weight(module: nn.Module) -> torch.Tensor:
    """What a Linear of 12 inputs does, bias apart."""
    with torch.no_grad():
        return (module(torch.eye(12)) - module(torch.zeros(1, 12))).T


@pytest.mark.parametrize("options", [{}, {"lokr_full_rank": False, "linear": 1, "linear_alpha": 3, "lokr_factor": 2}])
def test_lokr_adds_the_kronecker_product(options: dict[str, Any]):
    module, trainable = linear()
    base = effective_weight(module)
    parts = randomize(build("lokr", module, trainable, **{"lokr_factor": -1, **options}))
    assert isinstance(module[0], KronLinear)
    if options:
        assert parts["lokr_w1"].shape == (2, 2) and parts["lokr_w2_a"].shape == (4, 1)
        wanted = 3.0 * torch.kron(parts["lokr_w1"], parts["lokr_w2_a"] @ parts["lokr_w2_b"])
    else:
        assert parts["lokr_w1"].shape == (2, 3) and parts["lokr_w2"].shape == (4, 4)
        wanted = torch.kron(parts["lokr_w1"], parts["lokr_w2"])
    torch.testing.assert_close(effective_weight(module) - base, wanted)
    # what peft itself makes of the same matrices
    torch.testing.assert_close(module[0].get_delta_weight("default"), wanted)


def test_loha_adds_the_product_entry_by_entry():
    module, trainable = linear()
    base = effective_weight(module)
    parts = randomize(build("loha", module, trainable))
    one, other = parts["hada_w1_a"] @ parts["hada_w1_b"], parts["hada_w2_a"] @ parts["hada_w2_b"]
    torch.testing.assert_close(effective_weight(module) - base, 2.0 * one * other)


def test_dora_turns_the_rows_and_sets_their_length():
    module, trainable = linear()
    base, network = module[0].weight.clone(), build("dora", module, trainable)
    parts = randomize(network)
    direction = base + 2.0 * parts["lora_B.weight"] @ parts["lora_A.weight"]
    wanted = parts["lora_magnitude_vector"][:, None] * direction / direction.norm(dim=1, keepdim=True)
    torch.testing.assert_close(effective_weight(module), wanted)
    with network.scaled(0.25):
        torch.testing.assert_close(effective_weight(module), base + 0.25 * (wanted - base))


def test_a_difference_reaches_norms_embeddings_and_convolutions_as_if_added_to_the_weight():
    torch.manual_seed(0)
    layers = [nn.LayerNorm(6), nn.Embedding(5, 6), nn.Conv2d(6, 4, 3, padding=1, groups=2), nn.Linear(6, 2)]
    inputs = [torch.randn(2, 6), torch.tensor([[0, 4]]), torch.randn(1, 6, 5, 5), torch.randn(2, 6)]
    module = nn.ModuleList(layers)
    network = build("mixed", module, TOY, network_kwargs={"full_if_contains": ["transformer.3"]})
    assert set(network.targets.full) == {"0", "1", "2", "3"} and not network.targets.sizes
    for param in network.params.values():
        param.data.normal_()
    for name, x in zip("0123", inputs, strict=True):
        wrapped = module.get_submodule(name)
        found = wrapped(x)
        base = wrapped.base_layer
        base.weight.data += network.params[f"{name}.diff"]
        if f"{name}.diff_b" in network.params:
            base.bias.data += network.params[f"{name}.diff_b"]
        torch.testing.assert_close(found, base(x), rtol=1e-4, atol=1e-5)
    assert module[3].in_features == 6 and module[0].normalized_shape == (6,)


def test_conv_alone_decides_about_large_convolutions():
    def adapted(name: str, **more: Any) -> Adapter:
        return build(name, nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 4)), TOY, **more)

    for name in ("lora", "locon", "dora", "lokr", "lokr-low", "loha", "fullrank"):
        assert set(adapted(name).updates) == {"0", "1", "2"}, name
        assert set(adapted(name, conv=0).updates) == {"1", "2"}, name
    for name in ("lora", "dora", "lokr-low", "loha"):
        assert set(adapted(name, conv=None).updates) == {"1", "2"}, name
    params = adapted("lora").params
    assert [len(params[f"{name}.lora_A.weight"]) for name in "012"] == [2, 3, 3]


def test_ranks_and_alphas_per_block():
    dims = [0, 1, 2, 3, *[1] * 8, 5, *[4] * 12]
    kwargs = {"block_dims": dims, "block_alphas": [float(2 * dim) for dim in dims]}
    network = build("lora", unet(), conv=0, network_kwargs=kwargs, transformer_only=False)
    rank = {name.removesuffix(".lora_A.weight"): len(p) for name, p in network.params.items() if "lora_A" in name}
    assert rank["mid_block.attentions.0.proj_in"] == 5
    assert rank["down_blocks.0.attentions.0.proj_in"] == 1 and rank["up_blocks.0.resnets.0.time_emb_proj"] == 4
    assert not any(name.startswith("time_embedding") for name in rank), "rank 0 leaves a block out"
    assert {update.scale for update in network.updates.values()} == {2.0}
    with pytest.raises(ValueError, match="block_dims: has 3 numbers, the model 25 blocks"):
        build("lora", unet(), network_kwargs={"block_dims": [1, 2, 3]})


@pytest.mark.parametrize("name", ["lokr", "loha"])
def test_dropouts_of_products_act_while_training_only(name: str):
    for key in ("rank_dropout", "module_dropout"):
        module, trainable = linear(64)
        randomize(build(name, module, trainable, network_kwargs={key: 0.5}))
        torch.manual_seed(0)
        module.train()
        assert len(torch.stack([effective_weight(module) for _ in range(12)]).unique(dim=0)) > 1, key
        module.eval()
        assert len(torch.stack([effective_weight(module) for _ in range(12)]).unique(dim=0)) == 1, key


@pytest.mark.parametrize("name", ["lokr-low", "loha", "dora"])
def test_another_rank_is_converted_on_request(name: str, tmp_path: Path):
    module, trainable = linear(16)
    file = tmp_path / "x.safetensors"
    low = build(name, module, trainable)
    randomize(low)
    low.write(file, torch.float32, {})
    again, _ = linear(16)
    high = build(name, again, trainable, linear=3)
    with pytest.raises(ValueError, match="of shape"):
        high.read(file)
    assert "converted" in high.read(file, exact=False)[0]
    torch.testing.assert_close(effective_weight(again), effective_weight(module), rtol=1e-4, atol=1e-5)


def test_lokr_is_factored_and_multiplied_out_on_request(tmp_path: Path):
    options = {"lokr_factor": 2, "lokr_full_rank": False, "linear_alpha": 1}
    found: dict[bool, torch.Tensor] = {}
    for low in (True, False):
        module, trainable = linear()
        network = build("lokr", module, trainable, **options, linear=1 if low else 8)
        if low:
            randomize(network)
            network.write(tmp_path / "x.safetensors", torch.float32, {})
        else:
            network.read(tmp_path / "x.safetensors", exact=False)
            network.write(tmp_path / "y.safetensors", torch.float32, {})
        found[low] = effective_weight(module)
    torch.testing.assert_close(found[False], found[True])
    module, trainable = linear()
    build("lokr", module, trainable, **options, linear=1).read(tmp_path / "y.safetensors", exact=False)
    torch.testing.assert_close(effective_weight(module), found[True])
    with pytest.raises(ValueError, match="another lokr_factor"):
        build("lokr", linear()[0], trainable, lokr_factor=4).read(tmp_path / "y.safetensors", exact=False)


@pytest.mark.parametrize("name", [name for name in TYPES if name not in ("mixed", "fullrank")])
def test_a_file_of_another_type_is_refused(name: str, tmp_path: Path):
    module, trainable = linear()
    save_file({"transformer.0.diff": torch.zeros(8, 12)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"transformer\.0 has .*diff"):
        build(name, module, trainable).read(tmp_path / "x.safetensors", exact=False)


def test_options_that_do_not_fit_a_type_are_errors():
    def contradictions(**options: Any) -> list[str]:
        config = load_plugin("networks", options["type"]).model_validate(options)
        sections = [config, config.network_kwargs]
        return [".".join(map(str, path)) for section in sections for path, _ in section.contradictions()]

    assert contradictions(type="dora", network_kwargs={"rank_dropout": 0.1}) == ["network_kwargs.rank_dropout"]
    assert contradictions(type="lokr", network_kwargs={"block_dims": [1]}) == ["network_kwargs.block_dims"]
    assert contradictions(type="fullrank", network_kwargs={"module_dropout": 0.1}) == ["network_kwargs.module_dropout"]
    assert contradictions(type="lora", network_kwargs={"block_alphas": [1]}) == ["block_alphas"]
    assert contradictions(type="lora", network_kwargs={"block_dims": [1, 2], "conv_block_dims": [1]}) == [
        "conv_block_dims"
    ]
    assert contradictions(type="lycoris", network_kwargs={"block_dims": [1]}) == []


def test_text_encoders_take_every_type(tmp_path: Path):
    from transformers import CLIPTextConfig, CLIPTextModel

    trainable = Trainable("text_encoder", r"(text_model\.)?encoder\.layers\..*", "text_encoder.")
    config = CLIPTextConfig(
        vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    ids = torch.tensor([[1, 5, 7, 19]])
    for name in TYPES:
        torch.manual_seed(0)
        encoder = CLIPTextModel(config).eval().requires_grad_(False)
        base = encoder(ids).last_hidden_state
        # numbers per block count the denoiser's blocks
        more = {"network_kwargs": {"block_dims": [2]}} if name in ("lora", "loha") else {}
        network = build(name, encoder, trainable, **more)
        torch.testing.assert_close(encoder(ids).last_hidden_state, base, rtol=0, atol=1e-5)
        randomize(network)
        changed = encoder(ids).last_hidden_state
        assert not torch.allclose(changed, base, atol=1e-3)
        network.write(tmp_path / "x.safetensors", torch.float32, {})
        for param in network.params.values():
            param.data.zero_()
        network.read(tmp_path / "x.safetensors")
        torch.testing.assert_close(encoder(ids).last_hidden_state, changed, rtol=1e-4, atol=1e-4)


def test_a_format_that_cannot_hold_a_network_is_refused_before_training(tiny_flux: Path):
    transformer = Source(str(tiny_flux)).load("transformer", torch.float32)
    trainable = Trainable("transformer", r"transformer_blocks\..*", "transformer.")
    codec = Codec(load_plugin("models", "flux").key_names, "transformer.", "original")
    network = load_plugin("networks", "lokr").model_validate({"type": "lokr"})
    with pytest.raises(ValueError, match="cannot be fused for LoKr; use the key format diffusers"):
        network.build(transformer, trainable, codec)
