"""A model whose weights are shared out over the ranks of a run (torch's FSDP2).

Each rank keeps a part of every weight, of its gradient and of what the optimizer remembers of it. A block is whole only
while it computes. All ranks have to call what makes tensors whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from toolkit.models.offload import repeated_layers


def share_out(module: nn.Module) -> None:
    """Share out the weights of a module, as fp32, block by block, over all ranks."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(module.parameters()).device.type, (torch.distributed.get_world_size(),))
    for block in [*repeated_layers(module), module]:
        for param in block.parameters():
            if not is_shared(param):
                param.data = param.data.float()
        # an operation in place on a view would cut what gathers the weights for the backward pass
        block.register_forward_hook(_without_views)
        fully_shard(block, mesh=mesh)


def _without_views(module: nn.Module, args: Any, output: Any) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor if tensor._base is None else tensor.clone(), output)


def is_shared(tensor: Any) -> bool:
    """Whether this process holds a part of a tensor only."""
    return hasattr(tensor, "full_tensor")


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: all of it, unless it is shared out."""
    return tensor.to_local() if is_shared(tensor) else tensor  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """The tensor in host memory; one that is shared out is whole on the first rank, and empty on the others."""
    if not is_shared(tensor):
        return tensor.detach().cpu()
    full = tensor.detach().full_tensor()  # type: ignore[attr-defined]
    return full.cpu() if torch.distributed.get_rank() == 0 else torch.empty(0)


def like(full: Tensor, example: Any) -> Tensor:
    """A whole tensor, shared out as `example` is."""
    if not is_shared(example) or full.shape != example.shape:
        return full
    from torch.distributed.tensor import distribute_tensor

    place = own_part(example).device
    return distribute_tensor(full.to(place), example.device_mesh, example.placements, src_data_rank=None)


def whole_state(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The `state_dict` of an optimizer with whole tensors, where they were shared out."""
    state = {
        number: {name: whole(value) if is_shared(value) else value for name, value in values.items()}
        for number, values in saved["state"].items()
    }
    return {**saved, "state": state}


def state_like(saved: Mapping[str, Any], params: Sequence[Tensor]) -> dict[str, Any]:
    """The reverse, for an optimizer of `params`."""
    state = {
        number: {
            name: like(value, params[number]) if isinstance(value, Tensor) else value for name, value in values.items()
        }
        for number, values in saved["state"].items()
    }
    return {**saved, "state": state}
