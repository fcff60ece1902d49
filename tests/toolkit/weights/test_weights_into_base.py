"""LoRAs merged into a base: numbers, layouts, predictions, what is refused. Real folders and files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from toolkit.config.key_names import KeyNames
from toolkit.models.family import Trainable
from toolkit.networks.attached import attach
from toolkit.networks.keys.codec import Codec
from toolkit.networks.keys.family import names_of
from toolkit.networks.keys.names import LayerNames
from toolkit.weights.base import open_base
from toolkit.weights.into_base import Added, merge_into_base, plan_updates

FLUX = names_of("flux")
WEIGHTS = "diffusion_pytorch_model.safetensors"
CHANGED = (
    "transformer_blocks.0.attn.to_q",
    "transformer_blocks.0.attn.to_v",
    "single_transformer_blocks.0.attn.to_k",
    "single_transformer_blocks.0.proj_mlp",
    "single_transformer_blocks.0.proj_out",
    "norm_out.linear",
)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def native(state: dict[str, Tensor], rank: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """A LoRA of some layers, under native names."""
    made = {}
    for number, layer in enumerate(CHANGED):
        rows, columns = state[f"{layer}.weight"].shape
        made[f"transformer.{layer}.lora_A.weight"] = draw(rank, columns, seed=seed + number)
        made[f"transformer.{layer}.lora_B.weight"] = draw(rows, rank, seed=seed + 50 + number)
    return made


def write(tensors: dict[str, Tensor], path: Path, format: str = "diffusers", names: KeyNames = FLUX) -> Path:
    save_file({k: t.contiguous() for k, t in Codec(names, "transformer.", format).encode(tensors).items()}, path)
    return path


def run(base: str | Path, added: list[Added], target: Path, names: KeyNames = FLUX, **options: object) -> list[str]:
    opened = open_base(str(base))
    updates, notes = plan_updates(opened, added, names)
    merge_into_base(opened, updates, target, added=added, **options)  # type: ignore[arg-type]
    return notes


@pytest.fixture
def state(tiny_flux: Path) -> dict[str, Tensor]:
    return load_file(tiny_flux / "transformer" / WEIGHTS)


def original_file(state: dict[str, Tensor], path: Path) -> Path:
    """The transformer as one file in the layout of the first release."""
    own = LayerNames(FLUX, "transformer.")
    written: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer, _, leaf = name.rpartition(".")
        place = own.original(layer)
        key = f"model.diffusion_model.{place.name}.{leaf}"
        if place.fused is not None:
            written[key] = torch.cat([state[f"{part}.{leaf}"] for part in place.parts])
        elif place.is_swapped:
            written[key] = torch.cat(tensor.chunk(2)[::-1])
        else:
            written[key] = tensor
    save_file(
        {k: t.contiguous() for k, t in written.items()} | {"vae.decoder.conv_in.weight": torch.ones(2, 2)},
        path,
        {"modelspec.title": "mine", "modelspec.hash_sha256": "old"},
    )
    return path


def expected(state: dict[str, Tensor], *loras: tuple[dict[str, Tensor], float]) -> dict[str, Tensor]:
    made = dict(state)
    for tensors, weight in loras:
        for layer in CHANGED:
            stem = f"transformer.{layer}"
            update = tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"]
            made[f"{layer}.weight"] = made[f"{layer}.weight"] + weight * update
    return made


def test_a_folder_gets_the_sum_of_all_updates_and_is_a_whole_model(
    tiny_flux: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    first, second = native(state), native(state, rank=3, seed=7)
    added = [
        Added(write(first, tmp_path / "a.safetensors"), 0.8),
        Added(write(second, tmp_path / "b.safetensors", "kohya"), -0.5),
    ]
    notes = run(tiny_flux, added, tmp_path / "out")
    assert notes[0] == f"a.safetensors x 0.8: {len(CHANGED)} layers of transformer"
    found = load_file(tmp_path / "out" / "transformer" / WEIGHTS)
    wanted = expected(state, (first, 0.8), (second, -0.5))
    assert found.keys() == state.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-6)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in tiny_flux.iterdir() if path.is_dir() or path.name == "model_index.json"
    } | {"aitk_merged.json"}
    made = json.loads((tmp_path / "out" / "aitk_merged.json").read_text())
    assert [(one["file"], one["weight"]) for one in made["merged_from"]] == [
        ("a.safetensors", 0.8),
        ("b.safetensors", -0.5),
    ]


def test_the_merged_model_predicts_what_the_base_with_attached_loras_does(
    tiny_flux: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    file = write(native(state), tmp_path / "a.safetensors", "comfyui")
    run(tiny_flux, [Added(file, 0.7)], tmp_path / "out", whole=False)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["aitk_merged.json", "transformer"]
    merged = FluxTransformer2DModel.from_pretrained(tmp_path / "out" / "transformer")
    base = FluxTransformer2DModel.from_pretrained(tiny_flux / "transformer")
    given = inputs(base)
    before = base(**given)[0]
    attach({Trainable("transformer", r".*", "transformer."): base}, FLUX, str(file), 0.7)
    with torch.no_grad():
        torch.testing.assert_close(merged(**given)[0], base(**given)[0], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(before, base(**given)[0], atol=1e-3)


def inputs(model: FluxTransformer2DModel) -> dict[str, Tensor | bool]:
    config = model.config
    return {
        "hidden_states": draw(1, 6, config.in_channels, seed=1),
        "encoder_hidden_states": draw(1, 4, config.joint_attention_dim, seed=2),
        "pooled_projections": draw(1, config.pooled_projection_dim, seed=3),
        "timestep": torch.tensor([0.5]),
        "guidance": torch.tensor([3.5]),
        "img_ids": torch.zeros(6, 3),
        "txt_ids": torch.zeros(4, 3),
        "return_dict": False,
    }


def test_a_single_file_keeps_its_names_fused_and_swapped_layers_included(
    tiny_flux: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    base = original_file(state, tmp_path / "base.safetensors")
    lora = native(state)
    run(base, [Added(write(lora, tmp_path / "a.safetensors"), 2.0)], tmp_path / "out.safetensors")
    found, before = load_file(tmp_path / "out.safetensors"), load_file(base)
    assert found.keys() == before.keys()
    assert {k: t.shape for k, t in found.items()} == {k: t.shape for k, t in before.items()}
    wanted = load_file(original_file(expected(state, (lora, 2.0)), tmp_path / "wanted.safetensors"))
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-6)
    touched = {name for name in found if not torch.equal(found[name], before[name])}
    assert touched == {
        "model.diffusion_model." + name
        for name in (
            "double_blocks.0.img_attn.qkv.weight",
            "single_blocks.0.linear1.weight",
            "single_blocks.0.linear2.weight",
            "final_layer.adaLN_modulation.1.weight",
        )
    }
    from toolkit.weights.stored import StoredTensors

    header = StoredTensors([tmp_path / "out.safetensors"]).header
    assert header["modelspec.title"] == "mine" and "modelspec.hash_sha256" not in header
    assert json.loads(header["merged_from"])[0]["weight"] == 2.0


@pytest.mark.parametrize("kind", ["lokr", "loha", "diff", "dora", "conv alpha"])
def test_every_network_type_is_merged_as_it_acts(kind: str, tmp_path: Path) -> None:
    weight, bias, layer = draw(8, 6, seed=1), draw(8, seed=2), "blocks.0.linear"
    tensors: dict[str, Tensor] = {
        "lokr": {"lokr_w1": draw(4, 2, seed=3), "lokr_w2": draw(2, 3, seed=4)},
        "loha": {f"hada_w{n}_{s}": draw(*((8, 2) if s == "a" else (2, 6)), seed=n) for n in (1, 2) for s in "ab"},
        "diff": {"diff": draw(8, 6, seed=3), "diff_b": draw(8, seed=4)},
        "dora": {
            "lora_A.weight": draw(2, 6, seed=3),
            "lora_B.weight": draw(8, 2, seed=4),
            "lora_magnitude_vector": torch.arange(1.0, 9),
        },
        "conv alpha": {
            "lora_down.weight": draw(2, 6, seed=3),
            "lora_up.weight": draw(8, 2, seed=4),
            "alpha": torch.tensor(6.0),
        },
    }[kind]
    folder = tmp_path / "model" / "transformer"
    folder.mkdir(parents=True)
    save_file({f"{layer}.weight": weight, f"{layer}.bias": bias}, folder / WEIGHTS)
    (folder / "config.json").write_text("{}")
    save_file(
        {f"transformer.{layer}.{suffix}": tensor for suffix, tensor in tensors.items()}, tmp_path / "a.safetensors"
    )
    run(folder, [Added(tmp_path / "a.safetensors", 0.5)], tmp_path / "out", KeyNames())
    found = load_file(tmp_path / "out" / WEIGHTS)
    updates: dict[str, Callable[[], Tensor]] = {
        "lokr": lambda: torch.kron(tensors["lokr_w1"], tensors["lokr_w2"]),
        "loha": lambda: (tensors["hada_w1_a"] @ tensors["hada_w1_b"]) * (tensors["hada_w2_a"] @ tensors["hada_w2_b"]),
        "diff": lambda: tensors["diff"],
        "dora": lambda: tensors["lora_B.weight"] @ tensors["lora_A.weight"],
        "conv alpha": lambda: 3 * tensors["lora_up.weight"] @ tensors["lora_down.weight"],
    }
    wanted = weight + 0.5 * updates[kind]()
    if kind == "dora":
        wanted = wanted / wanted.norm(dim=1, keepdim=True) * torch.arange(1.0, 9)[:, None]
    torch.testing.assert_close(found[f"{layer}.weight"], wanted, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found[f"{layer}.bias"], bias + 0.5 * tensors.get("diff_b", torch.zeros(8)))


def test_text_encoders_are_merged_and_open_clip_is_read(tmp_path: Path) -> None:
    rows = {name: draw(4, 4, seed=number) for number, name in enumerate(("q_proj", "v_proj", "fc1"))}
    lora: dict[str, Tensor] = {}
    for name, up in rows.items():
        path = f"text_encoder_2.text_model.encoder.layers.0.{'mlp' if name == 'fc1' else 'self_attn'}.{name}"
        lora |= {f"{path}.lora_A.weight": torch.eye(4), f"{path}.lora_B.weight": up}
    save_file(lora, tmp_path / "a.safetensors")
    start = "conditioner.embedders.1.model.transformer.resblocks.0."
    base = {f"{start}attn.in_proj_weight": draw(12, 4, seed=9), f"{start}mlp.c_fc.weight": draw(4, 4, seed=8)}
    base["model.diffusion_model.input_blocks.0.0.weight"] = torch.ones(2, 2, 3, 3)
    save_file(base, tmp_path / "xl.safetensors")
    run(
        tmp_path / "xl.safetensors", [Added(tmp_path / "a.safetensors")], tmp_path / "out.safetensors", names_of("sdxl")
    )
    found = load_file(tmp_path / "out.safetensors")
    change = found[f"{start}attn.in_proj_weight"] - base[f"{start}attn.in_proj_weight"]
    torch.testing.assert_close(change, torch.cat([rows["q_proj"], torch.zeros(4, 4), rows["v_proj"]]))
    torch.testing.assert_close(found[f"{start}mlp.c_fc.weight"], base[f"{start}mlp.c_fc.weight"] + rows["fc1"])


def test_bases_and_files_that_do_not_fit_are_refused(tiny_flux: Path, state: dict[str, Tensor], tmp_path: Path) -> None:
    lora = write(native(state), tmp_path / "a.safetensors")
    small = {k: t.to(torch.float8_e4m3fn) if t.ndim == 2 else t for k, t in state.items()}
    save_file(small, tmp_path / "fp8.safetensors")
    with pytest.raises(ValueError, match=r"is quantized \(.*float8_e4m3fn\).*name the checkpoint in fp32"):
        run(tmp_path / "fp8.safetensors", [Added(lora)], tmp_path / "out.safetensors")
    other = {k.replace("blocks.0", "blocks.9"): t for k, t in load_file(lora).items()}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"does not fit .* keys name no layer of this network"):
        run(tiny_flux, [Added(tmp_path / "other.safetensors")], tmp_path / "out")
    wide = {k: torch.nn.functional.pad(t, (0, 1)) if "lora_A" in k else t for k, t in load_file(lora).items()}
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match="does not fit a weight of"):
        run(tiny_flux, [Added(tmp_path / "wide.safetensors")], tmp_path / "out")
    with pytest.raises(ValueError, match=r"^model\.lora_path: .*wide\.safetensors: "):
        run(tiny_flux, [Added(tmp_path / "wide.safetensors", key="model.lora_path")], tmp_path / "out")
    assert not list(tmp_path.glob("*out*")), "nothing is left of a merge that failed"
    with pytest.raises(ValueError, match="has no transformer_2"):
        run(tiny_flux, [Added(lora, part="transformer_2")], tmp_path / "out")


def test_shards_stay_shards_and_memory_types_change(state: dict[str, Tensor], tiny_flux: Path, tmp_path: Path) -> None:
    model = FluxTransformer2DModel.from_pretrained(tiny_flux / "transformer")
    model.save_pretrained(tmp_path / "base", max_shard_size="200KB")
    shards = sorted(path.name for path in (tmp_path / "base").glob("*.safetensors"))
    assert len(shards) == 2
    lora = native(state)
    file = write(lora, tmp_path / "a.safetensors")
    run(tmp_path / "base", [Added(file)], tmp_path / "out", dtype=torch.bfloat16)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == shards
    merged = FluxTransformer2DModel.from_pretrained(tmp_path / "out", torch_dtype=torch.bfloat16)
    wanted = expected(state, (lora, 1.0))
    for name, tensor in merged.state_dict().items():
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor, wanted[name].bfloat16())


@pytest.mark.parametrize("stem", ["lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
                                  "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"])  # fmt: skip
def test_a_checkpoint_of_sdxl_in_one_file_is_found_layer_by_layer(stem: str, tmp_path: Path) -> None:
    start = "model.diffusion_model."
    query = f"{start}input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight"
    conv = f"{start}output_blocks.0.0.in_layers.2.weight"
    other = f"{start}middle_block.1.transformer_blocks.9.attn2.to_k.weight"
    encoder = "conditioner.embedders.1.model.transformer.resblocks.31.mlp.c_fc.weight"
    base = {query: draw(6, 6, seed=1), conv: draw(6, 6, 3, 3, seed=2), other: draw(6, 6, seed=3)}
    base |= {encoder: draw(6, 6, seed=4), "first_stage_model.decoder.conv_in.weight": draw(6, 6, seed=5)}
    save_file(base, tmp_path / "xl.safetensors")
    lora = {f"{stem}.lora_down.weight": draw(2, 6, seed=6), f"{stem}.lora_up.weight": draw(6, 2, seed=7)}
    lora |= {
        "unet.up_blocks.0.resnets.0.conv1.lora_A.weight": draw(2, 6, 3, 3, seed=8),
        "unet.up_blocks.0.resnets.0.conv1.lora_B.weight": draw(6, 2, 1, 1, seed=9),
    }
    save_file(lora, tmp_path / "a.safetensors")
    run(
        tmp_path / "xl.safetensors", [Added(tmp_path / "a.safetensors")], tmp_path / "out.safetensors", names_of("sdxl")
    )
    found = load_file(tmp_path / "out.safetensors")
    update = lora[f"{stem}.lora_up.weight"] @ lora[f"{stem}.lora_down.weight"]
    torch.testing.assert_close(found[query], base[query] + update)
    wide = draw(6, 2, seed=9) @ draw(2, 6, 3, 3, seed=8).flatten(1)
    torch.testing.assert_close(found[conv], base[conv] + wide.reshape(6, 6, 3, 3))
    assert all(torch.equal(found[name], base[name]) for name in base if name not in (query, conv))


def test_parts_that_are_copied_get_the_names_that_diffusers_looks_for(
    tiny_flux: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_flux, base)
    (base / "vae" / WEIGHTS).rename(base / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    (base / "text_encoder" / "model.safetensors").rename(base / "text_encoder" / "model.fp16.safetensors")
    run(base, [Added(write(native(state), tmp_path / "a.safetensors"))], tmp_path / "out")
    for part, name in (("vae", WEIGHTS), ("text_encoder", "model.safetensors")):
        found, wanted = load_file(tmp_path / "out" / part / name), load_file(tiny_flux / part / name)
        assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
