"""What SparK promises, beyond the authors' figures."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hounsfield.config import parse
from hounsfield.errors import ConfigError
from hounsfield.methods.spark import SparK, SparKConfig
from hounsfield.models.backbone import create
from hounsfield.models.layout import Layout
from reference.masked_dense import masked_spark_loss


def spark(size: int = 96, *, backbone: str = "resnet10_tiny", **settings: float) -> SparK:
    config = parse(SparKConfig, {"decoder_width": 32, **settings}, where="test")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SparK(create(backbone), config, image_size=size, corpus_size=4)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 1, 96, 96, generator=torch.Generator().manual_seed(1))


def hidden_pixels(layout: Layout) -> Tensor:
    patches = layout.hidden.view(-1, 1, *layout.grid)
    return patches.repeat_interleave(32, 2).repeat_interleave(32, 3)


@pytest.mark.parametrize("decoder_stride", [1, 4])
@pytest.mark.parametrize("empty_std", [0.0, 0.5])
def test_loss_and_gradients_are_those_of_the_masked_dense_model(
    images: Tensor, decoder_stride: int, empty_std: float
) -> None:
    images = images.double()
    model = spark(decoder_stride=decoder_stride, empty_std=empty_std).double()
    layout = model.draw_layout(images)
    parameters = [each for each in model.parameters() if each.requires_grad]

    ours = model.step(images, layout).loss
    truth = masked_spark_loss(model, images, ~layout.hidden.view(-1, 1, 3, 3))
    gradients = [torch.autograd.grad(loss, parameters) for loss in (ours, truth)]

    assert ours.item() == pytest.approx(truth.item(), rel=1e-12)
    for mine, true in zip(*gradients, strict=True):
        assert torch.allclose(mine, true, rtol=1e-8, atol=1e-10)


def test_a_hidden_pixel_changes_only_the_target(images: Tensor) -> None:
    model = spark()
    layout = model.draw_layout(images)
    other = torch.where(hidden_pixels(layout), torch.randn_like(images), images)

    assert torch.equal(model.draw(images, layout), model.draw(other, layout))
    assert model.step(images, layout).loss != model.step(other, layout).loss


def test_the_mask_hides_the_share_that_was_asked_for(images: Tensor) -> None:
    large = torch.zeros(2, 1, 224, 224)

    assert spark(224).draw_layout(large).visible.shape == (2, 20)  # 20 of 49, as in the paper
    assert spark(mask_ratio=0.9).draw_layout(images).visible.shape == (4, 1)


def test_masks_differ_between_images_and_steps_and_repeat_with_the_seed(images: Tensor) -> None:
    model = spark()

    torch.manual_seed(3)
    first, second = model.draw_layout(images).visible, model.draw_layout(images).visible
    torch.manual_seed(3)

    assert torch.equal(first, model.draw_layout(images).visible)
    assert not torch.equal(first, second)
    assert len({tuple(row) for row in first.tolist()}) > 1


def test_an_image_of_air_costs_nothing_and_harms_nothing() -> None:
    model = spark()

    loss = model([torch.full((2, 1, 96, 96), -2.0)]).loss
    loss.backward()

    assert loss.item() == 0
    assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())


def test_visible_patches_are_kept_in_a_reconstruction(images: Tensor) -> None:
    model = spark()
    layout = model.draw_layout(images)

    drawn = model.reconstruct(images, layout)

    same = drawn.isclose(images, atol=1e-6)
    assert same[~hidden_pixels(layout)].all()
    assert same[hidden_pixels(layout)].float().mean() < 0.01


def test_what_the_maps_do_not_depend_on_is_not_trained(images: Tensor) -> None:
    model = spark(backbone="convnext_atto")
    model([images]).loss.backward()

    frozen = [name for name, each in model.named_parameters() if not each.requires_grad]
    assert frozen == ["backbone.net.head.norm.weight", "backbone.net.head.norm.bias"]
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)


def test_a_copy_runs_on_its_own_weights(images: Tensor) -> None:
    model = spark()
    layout = model.draw_layout(images)
    copy = deepcopy(model)
    before = model.draw(images, layout)

    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(1.0)

    assert torch.equal(copy.draw(images, layout), before)
    assert not torch.equal(model.draw(images, layout), before)
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy.draw(images, layout), model.draw(images, layout))


def test_half_precision_draws_what_full_precision_draws(images: Tensor) -> None:
    model = spark()
    layout = model.draw_layout(images)

    full = model.step(images, layout).loss
    with torch.autocast("cpu", torch.bfloat16):
        half = model.step(images, layout).loss
    half.backward()

    assert half.dtype == torch.float32  # the error is summed in full precision
    assert half.item() == pytest.approx(full.item(), rel=0.02)


class Operations(TorchDispatchMode):
    """Which operations ran, and the shapes of what they gave."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN
        out = func(*args, **(kwargs or {}))
        self.seen.append((str(func), tuple(out.shape) if isinstance(out, Tensor) else ()))
        return out


def test_no_step_waits_for_the_device_and_no_shape_depends_on_the_mask(images: Tensor) -> None:
    model = spark()
    steps = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model.zero_grad(set_to_none=True)
        with Operations() as operations:
            model([images]).loss.backward()
        steps.append(operations.seen)

    names = {name for name, _ in steps[0]}
    assert steps[0] == steps[1]
    assert not {name for name in names if "nonzero" in name or "local_scalar" in name}
    assert "aten.convolution_backward.default" in names  # it has seen both directions


def test_the_step_compiles_in_one_piece(images: Tensor) -> None:
    model = spark().eval()
    layout = model.draw_layout(images)

    compiled = torch.compile(model.draw, fullgraph=True, backend="eager")

    assert torch.allclose(compiled(images, layout), model.draw(images, layout), atol=1e-6)


def test_an_image_that_is_not_whole_patches_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"100 x 100 is not .* Take a multiple of 32"):
        spark(100)


def test_a_mask_that_hides_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mask_ratio = 0.95 keeps 0 of an image's 9 patches"):
        spark(mask_ratio=0.95)


def test_a_decoder_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ConfigError, match="decoder width 20 cannot be halved 5 times"):
        spark(decoder_width=20, decoder_stride=1)


def test_a_decoder_that_would_end_between_two_strides_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot end at stride 3. Allowed: 32, 16, 8, 4, 2, 1"):
        spark(decoder_stride=3)
