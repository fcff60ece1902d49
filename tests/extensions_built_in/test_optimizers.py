"""Every optimizer trains, goes on bit by bit after a resume, and says what it cannot do."""

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.utils._python_dispatch import TorchDispatchMode

from extensions_built_in.optimizers import build
from extensions_built_in.optimizers.config import Adafactor, Adam, AdamW, AdamW8bit, Lion, Lion8bit, Prodigy
from toolkit.config.plugins import OptimizerPlugin

ALL: list[tuple[OptimizerPlugin, float]] = [
    (AdamW(), 1e-2),
    (AdamW(amsgrad=True, weight_decay=0.1), 1e-2),
    (Adam(weight_decay=0.1), 1e-2),
    (AdamW8bit(), 1e-2),
    (Lion8bit(weight_decay=0.1), 1e-3),
    (Adafactor(), 1e-2),
    (Adafactor(beta1=0.9, scale_parameter=True, relative_step=True, warmup_init=False), 1e-2),
    (Prodigy(), 1.0),
    (Prodigy(use_bias_correction=True, safeguard_warmup=True, slice_p=3, weight_decay=0.01, d_coef=1.5), 1.0),
    (Lion(weight_decay=0.1), 1e-3),
]
each = pytest.mark.parametrize(("plugin", "lr"), ALL, ids=lambda value: type(value).__name__)


def weights() -> list[torch.nn.Parameter]:
    """Return weights as a LoRA has them: a random A, a B of zeros, large enough for 8 bits, and a small vector."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(96, 64, generator=generator) / 8
    return [torch.nn.Parameter(value) for value in (a, torch.zeros(64, 96), torch.randn(5, generator=generator))]


def loss(params: list[torch.nn.Parameter], step: int) -> torch.Tensor:
    """Return a loss whose minimum is away from where training starts."""
    a, b, c = params
    x = torch.randn(16, 64, generator=torch.Generator().manual_seed(step))
    return ((x @ a.T @ b.T - x.roll(1, dims=1)) ** 2).mean() + ((c - 1) ** 2).mean()


def train(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], steps: range) -> None:
    """Run some updates."""
    for step in steps:
        loss(params, step).backward()
        optimizer.step()
        optimizer.zero_grad()


@each
def test_resume_is_bit_identical(plugin: OptimizerPlugin, lr: float, tmp_path: Path) -> None:
    straight = weights()
    train(plugin.build(straight, lr), straight, range(5))

    first = weights()
    optimizer = plugin.build(first, lr)
    train(optimizer, first, range(3))
    torch.save({"optimizer": optimizer.state_dict(), "params": [p.detach() for p in first]}, tmp_path / "state.pt")

    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second = weights()
    resumed = plugin.build(second, lr)
    with torch.no_grad():
        for param, saved in zip(second, state["params"], strict=True):
            param.copy_(saved)
    resumed.load_state_dict(state["optimizer"])
    train(resumed, second, range(3, 5))

    for expected, start, got in zip(straight, weights(), second, strict=True):
        assert torch.equal(expected, got)
        assert not torch.equal(expected, start)


@each
def test_training_lowers_the_loss(plugin: OptimizerPlugin, lr: float) -> None:
    params = weights()
    before = loss(params, 999).item()
    # Prodigy first has to find its learning rate.
    train(plugin.build(params, lr), params, range(120 if isinstance(plugin, Prodigy) else 30))
    assert loss(params, 999).item() < 0.95 * before


@each
def test_learning_rate_of_each_group_is_obeyed_and_remembered(plugin: OptimizerPlugin, lr: float) -> None:
    params = weights()
    optimizer = plugin.build([{"params": params[:2]}, {"params": params[2:]}], lr)
    relative = getattr(plugin, "relative_step", False)
    assert [group["initial_lr"] for group in optimizer.param_groups] == [None if relative else lr] * 2
    if relative:
        return
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(optimizer, params, range(2))
    assert all(torch.equal(a, b) for a, b in zip(params, weights(), strict=True))


def test_defaults_are_those_of_users_configs() -> None:
    for plugin in (AdamW(), Adam(), AdamW8bit(), Prodigy()):
        assert plugin.eps == 1e-6
        assert plugin.build(weights(), 1.0).param_groups[0]["eps"] == 1e-6
    assert AdamW(eps=1e-8).build(weights(), 1e-4).param_groups[0]["eps"] == 1e-8
    assert AdamW().weight_decay == 0.01 == AdamW8bit().weight_decay


@pytest.mark.parametrize("betas", ["0.9,0.99", "[0.9, 0.99]", [0.9, 0.99]])
def test_betas_as_people_write_them(betas: Any) -> None:
    assert AdamW.model_validate({"betas": betas}).betas == (0.9, 0.99)


@pytest.mark.parametrize(
    ("plugin", "values"),
    [
        (AdamW, {"betas": [0.9]}),
        (AdamW, {"betas": [0.9, 1.0]}),
        (AdamW, {"weight_decay": -1}),
        (AdamW, {"d_coef": 1.0}),
        (Prodigy, {"growth_rate": 0.5}),
        (Lion, {"eps": 1e-8}),
    ],
)
def test_wrong_values_and_foreign_keys_are_refused(plugin: type[OptimizerPlugin], values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        plugin.model_validate(values)


def test_prodigy_reads_the_learning_rate_of_another_optimizer_as_one(caplog: pytest.LogCaptureFixture) -> None:
    assert Prodigy().build(weights(), 1e-4).param_groups[0]["lr"] == 1.0
    assert "train.lr: 0.0001 is read as 1.0" in caplog.text
    caplog.clear()
    assert Prodigy().build(weights(), 0.5).param_groups[0]["lr"] == 0.5
    assert not caplog.text


def test_prodigy_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    Prodigy(weight_decay=0.1).build(weights(), 1.0)
    assert capfd.readouterr().out == ""


def test_adamw_is_torchs() -> None:
    ours, theirs = weights(), weights()
    train(AdamW(eps=1e-8).build(ours, 1e-3), ours, range(3))
    train(torch.optim.AdamW(theirs, lr=1e-3, weight_decay=0.01, foreach=False), theirs, range(3))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_eight_bits_are_eight_bits_and_small_tensors_are_not() -> None:
    params = weights()
    optimizer = AdamW8bit().build(params, 1e-3)
    train(optimizer, params, range(1))
    assert [optimizer.state[p]["state1"].dtype for p in params] == [torch.uint8, torch.uint8, torch.float32]


class NoEightBitKernels(TorchDispatchMode):
    """Lets torch find no kernel of bitsandbytes, as on a device that it does not know."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "bitsandbytes":
            raise NotImplementedError(f"no kernel for {func}\nand a page of advice")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("plugin", "way_out"), [(AdamW8bit(), "adamw"), (Lion8bit(), "lion")])
def test_device_without_eight_bit_kernels_is_told_the_way_out(plugin: OptimizerPlugin, way_out: str) -> None:
    expected = rf"cannot run {type(plugin).__name__} on cpu \(no kernel for .*\); set train.optimizer: {way_out},"
    with NoEightBitKernels(), pytest.raises(ValueError, match=expected) as caught:
        plugin.build(weights(), 1e-3)
    assert "\n" not in str(caught.value)


def test_missing_bitsandbytes_is_told_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r"adamw8bit needs bitsandbytes .*; set train.optimizer: adamw"):
        AdamW8bit().build(weights(), 1e-3)


def test_libraries_are_imported_only_by_what_needs_them() -> None:
    tree = ast.parse(Path(build.__file__).read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    assert not {name.split(".")[0] for name in modules} & {"bitsandbytes", "transformers", "prodigyopt", "lion_pytorch"}


def test_adafactor_warmup_needs_relative_step() -> None:
    with pytest.raises(ValueError, match="relative_step: true"):
        Adafactor(warmup_init=True).build(weights(), 1e-3)
