"""Where networks compute: device, memory layout, precision, and this process among several."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from monai.utils import set_determinism
from torch import nn

from monai_flowssn.weights import load_weights

__all__ = ["on_device", "own_device", "precision", "start_process"]


def on_device(network: nn.Module, device: torch.device | str, weights: str | None = None) -> nn.Module:
    """Put a network on a device, in the memory layout that its convolutions are fastest in: channels last.

    Args:
        network: of 2-D or of 3-D convolutions.
        device: where to.
        weights: file to load them from; None leaves them as they are.

    Raises:
        ValueError: if the file is missing, or of another network.
    """
    if weights is not None:
        load_weights(network, weights)
    volumes = any(parameter.ndim == 5 for parameter in network.parameters())
    layout = torch.channels_last_3d if volumes else torch.channels_last
    return network.to(device, memory_format=layout)  # type: ignore[call-overload]  # of torch, which has it in the text alone


def precision(device: torch.device | str, amp: bool | None = None) -> dict[str, Any]:
    """Return ``amp`` and ``amp_kwargs`` of MONAI's engines: bfloat16 where the GPU computes in it, else float16.

    On CPUs the inferers see to it (:func:`~monai_flowssn.inferers.cpu_autocast`).

    Args:
        device: of the engine.
        amp: False for float32 on a GPU too.
    """
    cuda = torch.device(device).type == "cuda"
    bfloat16 = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    return {"amp": cuda and amp is not False, "amp_kwargs": {"dtype": torch.bfloat16 if bfloat16 else torch.float16}}


def own_device() -> torch.device:
    """Return the device of this process among those that torchrun started on a machine."""
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")


def start_process(device: torch.device, seed: int) -> None:
    """Join the processes that torchrun started; each has its own noise.

    Args:
        device: of this process.
        seed: of the workflow.
    """
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    set_determinism(seed + dist.get_rank())
