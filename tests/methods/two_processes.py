"""One of two processes that share a batch: `python two_processes.py RANK FOLDER`."""

import sys
from pathlib import Path

import torch
from timm.layers import BatchNormAct2d
from torch import distributed, nn

from hounsfield.augment.views import recipe
from hounsfield.methods import find
from hounsfield.methods.base import Method
from hounsfield.models.backbone import create
from hounsfield.models.gather import gather, own_rows, processes, synchronise
from hounsfield.models.layout import Layout

OPTIONS = {
    "byol": {"hidden_dim": 32, "projection_dim": 16},
    "moco_v2": {"queue_size": 24, "projection_dim": 16},
    "spark": {"decoder_width": 32},
    "swav": {"hidden_dim": 32, "projection_dim": 16, "prototypes": 12, "queue_size": 16},
}
BATCH, STEPS = 8, 3


def make(name: str) -> Method:
    kind = find(name)
    torch.manual_seed(0)
    config = kind.config_class(**OPTIONS[name], **({"queue_from": 0} if name == "swav" else {}))
    return kind(create("resnet10_tiny"), config, image_size=64, corpus_size=16).double()


def train(name: str) -> dict[str, torch.Tensor]:
    """The last losses, gradients and states after some steps on this process's rows."""
    method = synchronise(make(name))
    images = torch.randn(BATCH, 1, 64, 64, generator=torch.Generator().manual_seed(1)) * 500
    if name == "spark":  # the masks of this process's rows, as one process would draw them
        joint_layout = method.draw_layout

        def own_layout(part):
            torch.manual_seed(2)
            whole = joint_layout(images)
            return Layout(own_rows(whole.visible), grid=whole.grid)

        method.draw_layout = own_layout
    for step in range(STEPS):
        views = recipe(method.recipe, size=64)(
            images.to(torch.int16),
            torch.ones(BATCH, dtype=torch.bool),
            torch.Generator().manual_seed(step),
        )
        method.before_step(step / STEPS)
        method.zero_grad()
        loss = method([own_rows(view).double() for view in views]).loss
        loss.backward()
        gradients = {
            f"{name} gradient of {key}": mean(weight.grad)
            for key, weight in method.named_parameters()
            if weight.grad is not None
        }
        with torch.no_grad():
            for key, weight in method.named_parameters():
                if weight.grad is not None:
                    weight.sub_(0.05 * gradients[f"{name} gradient of {key}"])
        method.after_step(step / STEPS)
    states = {f"{name} {key}": value for key, value in method.state_dict().items()}
    return {f"{name} loss": mean(loss.detach()), **gradients, **states}


def layers() -> dict[str, torch.Tensor]:
    """Outputs and gradients of the building blocks, joined over the processes."""
    found = {}
    for norm in (
        nn.BatchNorm1d(6),
        nn.BatchNorm2d(6),
        BatchNormAct2d(6),
        nn.BatchNorm2d(6, eps=1e-3),
    ):
        kind = f"{type(norm).__name__} {norm.eps}"
        chance = torch.Generator().manual_seed(3)
        shape = (8, 6) if isinstance(norm, nn.BatchNorm1d) else (8, 6, 3, 5)
        joint = torch.randn(shape, generator=chance, dtype=torch.float64) * 3 + 1
        asked = torch.randn(shape, generator=chance, dtype=torch.float64)
        norm = synchronise(norm.double())
        own = own_rows(joint).clone().requires_grad_()
        out = norm(own)
        (out * own_rows(asked)).sum().backward()
        found |= {
            f"{kind} output": gather(out.detach()),
            f"{kind} gradient of input": gather(own.grad),
            f"{kind} gradient of weight": total(norm.weight.grad),
            f"{kind} running_var": norm.running_var,
            f"{kind} in evaluation": gather(norm.eval()(own).detach()),
        }
    halved = synchronise(nn.BatchNorm2d(6))(own_rows(joint).bfloat16())
    found["in half precision"] = gather(halved.detach().double())
    own = own_rows(torch.arange(8.0, dtype=torch.float64)[:, None]).clone().requires_grad_()
    (gather(own).pow(3).sum() / processes()).backward()  # each asks for its share of the joint
    return {**found, "gathered": gather(own.detach()), "gradient of gathered": gather(own.grad)}


def total(part: torch.Tensor) -> torch.Tensor:
    joint = part.clone()
    if processes() > 1:
        distributed.all_reduce(joint)
    return joint


def mean(part: torch.Tensor) -> torch.Tensor:
    return total(part) / processes()


def everything() -> dict[str, torch.Tensor]:
    found = layers()
    for name in OPTIONS:
        found |= train(name)
    return found


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    if rank == 0:  # what one process does with all of it, before it has company
        torch.save(everything(), folder / "alone.pt")
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.save(everything(), folder / f"{rank}.pt")
    distributed.destroy_process_group()
