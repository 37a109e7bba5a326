"""Which device trains, in which precision, in how many processes."""

from typing import TYPE_CHECKING, Literal

import torch

from hounsfield.train.memory import keep_freed_memory

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "32-true", "bf16-mixed"]


def fabric(
    device: DeviceName = "auto", *, precision: Precision = "auto", processes: int = 1
) -> "Fabric":
    """The device, the precision and the processes of a training, as Lightning Fabric has them.

    Args:
        device: "auto" takes CUDA where there is a GPU.
        precision: "auto" is bf16-mixed on GPUs that compute in bfloat16, 32-true elsewhere.
        processes: One process a GPU, or so many on the CPU (gloo).
    """
    from lightning_fabric import Fabric  # seconds to import

    device, precision = chosen(device, precision)
    if device == "cpu":
        keep_freed_memory()
    return Fabric(
        accelerator=device,
        devices=processes,
        strategy="ddp_spawn" if processes > 1 else "auto",
        precision=precision,
    )


def chosen(device: DeviceName, precision: Precision) -> tuple[DeviceName, Precision]:
    """What "auto" means on this machine; anything else stays as it is."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        precision = "bf16-mixed" if device == "cuda" and has_bf16() else "32-true"
    return device, precision


def kind_of(device: torch.device) -> str:
    """What computes, in a word: `cpu`, or a GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def has_bf16() -> bool:
    """Whether this machine's GPU computes in bfloat16 itself, not by emulation."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
