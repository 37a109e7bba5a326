"""What the loop and the study rely on, checked for any method in seconds on one core.

For the methods here and for those from outside, on a small backbone and a small batch of noise:

    broken = broken_promises(find("my_package.my_module:MyMethod"))
    assert not broken, broken
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hounsfield.augment.views import recipe
from hounsfield.config import Config, parse
from hounsfield.errors import ConfigError, InputError
from hounsfield.methods.base import Method, Step
from hounsfield.models.backbone import create

BATCH, CORPUS, SIZE = 8, 40, 64


@dataclass(frozen=True)
class Subject:
    """A method to be checked.

    Attributes:
        kind: The method's class.
        options: Of its configuration, where the defaults will not do.
        backbone: A small network that it can work with.
    """

    kind: type[Method]
    options: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = "resnet10_tiny"

    def make(self, *, seed: int = 0, channels: int = 1) -> Method:
        """A fresh one, in training mode; the global generator is left as it was."""
        config: Config = parse(self.kind.config_class, self.options, where="options")
        backbone = create(self.backbone, channels=channels, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            make: Callable[..., Method] = self.kind
            return make(backbone, config, image_size=SIZE, corpus_size=CORPUS).train()

    def views(self, *, seed: int = 0, channels: int = 1) -> list[Tensor]:
        """Views of a batch of smooth noise in HU, by the method's own recipe."""
        chance = torch.Generator().manual_seed(seed)
        coarse = torch.randn(BATCH, 1, 8, 8, generator=chance) * 400
        images = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")
        views = recipe(self.kind.recipe, size=SIZE, channels=channels)
        is_hu = torch.ones(BATCH, dtype=torch.bool)
        return views(images.to(torch.int16), is_hu, chance)


def broken_promises(
    kind: type[Method], *, options: Mapping[str, Any] | None = None, backbone: str = "resnet10_tiny"
) -> list[str]:
    """What the method does not keep, a sentence each; an empty list is what to hope for.

    Args:
        kind: The method's class.
        options: Of its configuration, where the defaults will not do.
        backbone: A small network that it can work with.
    """
    subject = Subject(kind, options or {}, backbone)
    return [
        f"{promise.replace('_', ' ')}: {what}"
        for promise in PROMISES
        for what in findings(promise, subject)
    ]


def findings(promise: str, subject: Subject) -> list[str]:
    """How the subject breaks one of `PROMISES`; an exception on the way breaks it as well."""
    try:
        return list(PROMISES[promise](subject))
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def _declares_itself(subject: Subject) -> Iterator[str]:
    for attribute in ("name", "config_class", "recipe"):
        if not hasattr(subject.kind, attribute):
            yield f"the class attribute {attribute!r} is missing"
    try:
        subject.kind.config_class()
    except ValueError as error:
        yield f"its configuration has a setting without a default: {error}"


def _gives_a_finite_scalar_loss(subject: Subject) -> Iterator[str]:
    step = _forward(subject.make(), subject.views())
    if step.loss.shape != () or not step.loss.isfinite():
        yield f"got a loss of shape {tuple(step.loss.shape)}, {step.loss.detach().tolist()}"
    for name, value in step.logs.items():
        if value.shape != () or value.requires_grad:
            yield f"log {name!r} must be a scalar without gradient"


def _moves_the_whole_backbone(subject: Subject) -> Iterator[str]:
    method = subject.make()
    _forward(method, subject.views()).loss.backward()  # type: ignore[no-untyped-call]
    for name, weight in method.backbone.named_parameters():
        if weight.grad is None or not weight.grad.isfinite().all():
            yield f"backbone parameter {name} got no finite gradient"
    if not any(p.grad is not None and p.grad.any() for p in method.backbone.parameters()):
        yield "every gradient of the backbone is zero"


def _goes_down_on_a_fixed_batch(subject: Subject) -> Iterator[str]:
    # Without after_step: what the loss compares with stands still, so that it can only fall.
    method, views = subject.make(), subject.views()
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(12):
        method.before_step(0.0)
        loss = _forward(method, views).loss
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    if not losses[-1] < losses[0]:
        yield f"from {losses[0]:.4g} to {losses[-1]:.4g} in {len(losses)} steps"


def _goes_on_from_its_state_dict(subject: Subject) -> Iterator[str]:
    first, second = subject.make(seed=1), subject.make(seed=2)
    views = [subject.views(seed=seed) for seed in range(6)]
    for number in range(4):
        _train(first, views[number], progress=number / 6)
    second.load_state_dict(first.state_dict())
    for number in (4, 5):
        losses = [_train(method, views[number], progress=number / 6) for method in (first, second)]
        if losses[0] != losses[1]:
            yield f"uninterrupted the loss is {losses[0]:.8g}, resumed it is {losses[1]:.8g}"
            return
    resumed = dict(_tensors(second.state_dict()))
    for name, value in _tensors(first.state_dict()):
        if not torch.equal(value, resumed[name]):
            yield f"{name} differs two steps after a resume"


def _measures_without_learning(subject: Subject) -> Iterator[str]:
    method, views = subject.make().eval(), subject.views()
    before = {name: value.clone() for name, value in _tensors(method.state_dict())}
    _forward(method, views)
    for name, value in _tensors(method.state_dict()):
        if not torch.equal(value, before[name]):
            yield f"a forward pass in evaluation mode changed {name}"


def _takes_its_chance_from_torch(subject: Subject) -> Iterator[str]:
    method, views = subject.make().eval(), subject.views()
    losses = [float(_forward(method, views, seed=3).loss.detach()) for _ in range(2)]
    if losses[0] != losses[1]:
        yield f"equal seeds gave losses {losses[0]:.8g} and {losses[1]:.8g}"


def _sees_every_channel(subject: Subject) -> Iterator[str]:
    method, views = subject.make(channels=3), subject.views(channels=3)
    loss = _forward(method, views).loss
    if not loss.isfinite():
        yield f"three channels gave a loss of {float(loss.detach())}"


def _bears_half_precision(subject: Subject) -> Iterator[str]:
    method, views = subject.make().eval(), subject.views()
    full = float(_forward(method, views).loss.detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = float(_forward(method, views).loss.detach())
    if not math.isclose(full, half, rel_tol=0.05, abs_tol=0.02):
        yield f"the loss is {full:.4g} in float32 and {half:.4g} in bfloat16"


def _refuses_views_that_it_cannot_use(subject: Subject) -> Iterator[str]:
    try:
        subject.make()([])
    except InputError:
        return
    except Exception as error:
        yield f"no views at all gave {type(error).__name__}, not an InputError that says so"
    else:
        yield "no views at all were accepted"


PROMISES: Mapping[str, Callable[[Subject], Iterator[str]]] = {
    check.__name__.removeprefix("_"): check
    for check in (
        _declares_itself,
        _gives_a_finite_scalar_loss,
        _moves_the_whole_backbone,
        _goes_down_on_a_fixed_batch,
        _goes_on_from_its_state_dict,
        _measures_without_learning,
        _takes_its_chance_from_torch,
        _sees_every_channel,
        _bears_half_precision,
        _refuses_views_that_it_cannot_use,
    )
}


def check(kind: type[Method], *, options: Mapping[str, Any] | None = None) -> None:
    """Nothing, for a method that keeps every promise.

    Raises:
        ConfigError: It does not; the message names every broken promise.
    """
    broken = broken_promises(kind, options=options)
    if broken:
        raise ConfigError(f"method {kind.__name__} breaks the contract. " + "; ".join(broken))


def _forward(method: Method, views: list[Tensor], *, seed: int = 0) -> Step:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return method(views)


def _train(method: Method, views: list[Tensor], *, progress: float) -> float:
    method.before_step(progress)
    method.zero_grad()
    loss = _forward(method, views).loss
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for weight in method.parameters():
            if weight.grad is not None:
                weight.add_(weight.grad, alpha=-0.01)
    method.after_step(progress)
    return float(loss.detach())


def _tensors(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in state.items() if isinstance(value, Tensor))
