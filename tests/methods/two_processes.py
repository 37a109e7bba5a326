"""What one process does with a batch, and what each of two does that share it."""

from collections.abc import Iterator
from pathlib import Path

import torch
from lightning_fabric import Fabric
from timm.layers import BatchNormAct2d
from torch import distributed, nn

from hounsfield.augment.views import recipe
from hounsfield.methods import find
from hounsfield.methods.base import Method
from hounsfield.models.backbone import create
from hounsfield.models.gather import gather, own_rows, processes, synchronise
from hounsfield.models.layout import Layout
from hounsfield.train.loop import fit
from hounsfield.train.optim import OptimConfig
from hounsfield.train.schedule import Schedule
from hounsfield.train.training import LoopConfig

OPTIONS = {
    "byol": {"hidden_dim": 32, "projection_dim": 16},
    "moco_v2": {"queue_size": 24, "projection_dim": 16},
    "spark": {"decoder_width": 32},
    "swav": {"hidden_dim": 32, "projection_dim": 16, "prototypes": 12, "queue_size": 16},
}
BATCH, STEPS, LR = 8, 3, 0.05


def make(name: str) -> Method:
    kind = find(name)
    torch.manual_seed(0)
    config = kind.config_class(**OPTIONS[name], **({"queue_from": 0} if name == "swav" else {}))
    return kind(create("resnet10_tiny"), config, image_size=64, corpus_size=16).double()


class Steps:
    """Batches that are nothing but their number."""

    batch, waited_s = BATCH, 0.0

    def prefetch(self, first: int, last: int) -> Iterator[int]:
        yield from range(first, last)


def train(name: str, machines: Fabric) -> dict[str, torch.Tensor]:
    """The state and the losses after some steps of the loop on this process's rows."""
    method = make(name)
    if machines.world_size > 1:
        synchronise(method)
    images = torch.randn(BATCH, 1, 64, 64, generator=torch.Generator().manual_seed(1)) * 500
    if name == "spark":  # the masks of this process's rows, as one process would draw them
        joint_layout = method.draw_layout

        def own_layout(part):
            torch.manual_seed(2)
            whole = joint_layout(images)
            return Layout(own_rows(whole.visible), grid=whole.grid)

        method.draw_layout = own_layout

    def make_views(step: int, generator: torch.Generator) -> list[torch.Tensor]:
        joint = recipe(method.recipe, size=64)(
            images.to(torch.int16),
            torch.ones(BATCH, dtype=torch.bool),
            generator.manual_seed(step),
        )
        return [own_rows(view).double() for view in joint]

    before = {key: value.clone() for key, value in method.named_parameters()}
    fitted = fit(
        method,
        batches=Steps(),
        make_views=make_views,
        optimiser=OptimConfig(name="sgd", lr=LR, momentum=0.0, weight_decay=0.0),
        schedule=Schedule(steps=STEPS, final_factor=1.0),
        seed=0,
        config=LoopConfig(log_every=1),
        fabric=machines,
    )
    found = {f"{name} {key}": value for key, value in method.state_dict().items()}
    for key, value in method.named_parameters():  # the sum of the steps' gradients
        if value.requires_grad:
            found[f"{name} gradient of {key}"] = (before[key] - value.detach()) / LR
    losses = [line["loss"] for line in fitted.curve]  # the first process's alone
    return found | ({f"{name} losses": torch.tensor(losses)} if losses else {})


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


def everything(machines: Fabric) -> dict[str, torch.Tensor]:
    found = layers()
    for name in OPTIONS:
        found |= train(name, machines)
    return found


def work(machines: Fabric, folder: Path) -> None:
    """What each process does."""
    torch.save(everything(machines), folder / f"{machines.global_rank}.pt")
