"""Backbones of many families give what they say they give."""

import pytest
import torch

from hounsfield.errors import ConfigError
from hounsfield.models.backbone import create

FAMILIES = (
    "resnet10_tiny",
    "resnet18",
    "convnext_atto",
    "densenet121",
    "dla34",
    "efficientnet_b0",
    "ghostnet_050",  # widens its last map before the classifier, as do the next three
    "hgnet_tiny",
    "mobilenetv3_small_050",
    "vgg11",
    "regnetx_002",
    "repvgg_a0",
    "xception41",
)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_feature_is_as_long_as_the_backbone_says(name):
    with torch.device("meta"):  # shapes without numbers
        backbone = create(name, channels=2).eval()
        features = backbone(torch.zeros(3, 2, 64, 64))
    assert features.shape == (3, backbone.embed_dim)


def test_equal_seeds_make_equal_weights_and_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = (create("resnet10_tiny", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    weight = first.net.conv1.weight
    assert torch.equal(weight, again.net.conv1.weight)
    assert not torch.equal(weight, other.net.conv1.weight)


def test_a_name_that_no_network_has_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown backbone 'resnet5'\. Did you mean 'resnet"):
        create("resnet5")


@pytest.mark.parametrize("name", ["resnet10_tiny", "resnet18", "convnext_atto", "regnetx_002"])
def test_stochastic_depth_changes_no_weight_and_nothing_in_evaluation(name):
    plain, dropping = create(name), create(name, drop_path=0.5)
    assert plain.state_dict().keys() == dropping.state_dict().keys()
    assert all(map(torch.equal, plain.state_dict().values(), dropping.state_dict().values()))
    for network in (plain, dropping):  # branches end in zeros at first: dropping one is not seen
        for parameter in network.parameters():
            parameter.data.add_(0.1)
    images = torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain.eval()(images), dropping.eval()(images))
    assert not torch.allclose(plain.train()(images), dropping.train()(images), atol=1e-3)


@pytest.mark.parametrize(
    "name", ["densenet121", "vgg11", "hrnet_w18_small"]
)  # the last takes the argument and does nothing with it
def test_a_network_without_stochastic_depth_is_refused_by_name_where_it_is_asked_for(name):
    create(name)
    with pytest.raises(ConfigError, match=rf"backbone '{name}' has no .* drop_path = 0\.1\. Set"):
        create(name, drop_path=0.1)


def test_an_image_that_does_not_go_through_is_refused_with_the_size_that_does():
    backbone = create("vit_tiny_patch16_224")
    with pytest.raises(ConfigError, match=r"images of 64 px do not .* It is made for 224 px"):
        backbone.check_size(64)
    backbone.check_size(224)
    assert backbone.training  # as it was


def test_a_network_that_is_too_deep_for_an_image_says_why():
    with pytest.raises(ConfigError, match=r"images of 16 px do not go through vgg11: .* small"):
        create("vgg11").check_size(16)


def test_a_network_that_cannot_be_made_is_refused(monkeypatch):
    def assert_three(*_, **__):
        raise AssertionError("in_chans must be 3")

    monkeypatch.setattr("timm.create_model", assert_three)
    with pytest.raises(ConfigError, match=r"'resnet18' with 1 input channel: in_chans must be 3\."):
        create("resnet18")
