import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from hounsfield.errors import WeightsError
from hounsfield.models import backbone as backbones
from hounsfield.models import weights_source
from hounsfield.models.backbone import Backbone
from hounsfield.models.pretrained import load_into
from hounsfield.models.recognise import guess

State = dict[str, Tensor]


def trained(name: str = "resnet10_tiny", channels: int = 3, seed: int = 5) -> Backbone:
    """A network whose batch-norm statistics are not the initial ones."""
    backbone = backbones.create(name, channels=channels, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for key, value in backbone.net.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(noise + 0.5 if "running_var" in key else value + 0.1 * noise)
        else:
            value.fill_(41)
    return backbone.eval()


def state(channels: int = 3, seed: int = 5) -> State:
    return dict(trained(channels=channels, seed=seed).net.state_dict())


def under(prefix: str, tensors: Mapping[str, Tensor]) -> State:
    return {prefix + name: value for name, value in tensors.items()}


def images(channels: int) -> Tensor:
    return torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(0))


def head(name: str) -> State:
    return {f"{name}.weight": torch.zeros(5, 64), f"{name}.bias": torch.zeros(5)}


def numbered(tensors: Mapping[str, Tensor]) -> State:
    """As `nn.Sequential(*net.children())` names them."""
    number = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    parts = {name: name.partition(".") for name in tensors}
    return {f"{number[part]}.{rest}": tensors[name] for name, (part, _, rest) in parts.items()}


# Every published layout: the tensors of the trained network and of a decoy -> what is saved.
LAYOUTS: dict[str, tuple[str, Callable[[State, State], object]]] = {
    "torchvision or timm": ("", lambda net, _: net | head("fc")),
    "timm training": ("state_dict.", lambda net, decoy: {
        "state_dict": net | head("fc"), "state_dict_ema": decoy, "arch": "resnet50", "epoch": 3}),
    "SparK, timm style": ("", lambda net, _: net),
    "SparK with the module wrapper": ("module.", lambda net, _: {
        "module": net, "arch": "resnet50"}),
    "SparK, whole": ("module.sparse_encoder.sp_cnn.", lambda net, _: {
        "module": under("sparse_encoder.sp_cnn.", net)
        | {"mask_token": torch.zeros(1), "dense_decoder.dec.0.up_sample.weight": torch.zeros(3)}}),
    "SwAV of the study": ("state_dict.model.", lambda net, _: {"state_dict": under("model.", net)
        | {"model.projection_head.0.weight": torch.zeros(4, 64),
           "model.prototypes.weight": torch.zeros(7, 4)}}),
    "MoCo of the study": ("state_dict.encoder_q.", lambda net, decoy: {"state_dict":
        under("encoder_k.", decoy) | under("encoder_q.", net | head("fc"))
        | {"queue": torch.zeros(4, 9), "queue_ptr": torch.zeros(1)}}),
    "BYOL of the study": ("state_dict.online_network.encoder.", lambda net, decoy: {"state_dict":
        under("target_network.encoder.", decoy) | under("online_network.encoder.", net)
        | {"online_network.projector.model.0.weight": torch.zeros(4, 64),
           "predictor.model.0.weight": torch.zeros(4, 4)}}),
    "MoCo's authors": ("state_dict.module.encoder_q.", lambda net, decoy: {"state_dict":
        under("module.encoder_q.", net) | under("module.encoder_k.", decoy)}),
    "solo-learn": ("state_dict.backbone.", lambda net, decoy: {"state_dict":
        under("momentum_backbone.", decoy) | under("backbone.", net) | head("classifier")}),
    "lightly": ("state_dict.backbone.", lambda net, decoy: {"state_dict":
        under("backbone_momentum.", numbered(decoy)) | under("backbone.", numbered(net))}),
    "VISSL": ("classy_state_dict.base_model.model.trunk._feature_blocks.", lambda net, _: {
        "classy_state_dict": {"base_model": {"model": {
            "trunk": under("_feature_blocks.", net), "heads": head("0.clf.0")}}}}),
    "mmpretrain": ("state_dict.backbone.", lambda net, decoy: {"meta": {"epoch": 3}, "state_dict":
        under("target_net.0.", decoy) | under("backbone.", net) | head("head.fc")}),
    "compiled": ("model._orig_mod.", lambda net, _: {"model": under("_orig_mod.", net)}),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_layout_fills_the_backbone(layout: str, tmp_path: Path) -> None:
    prefix, build = LAYOUTS[layout]
    torch.save(build(state(), state(seed=9)), tmp_path / "a.pth")
    backbone = backbones.create("resnet10_tiny", channels=3).eval()
    card = load_into(backbone, tmp_path / "a.pth")
    assert card.prefix == prefix
    assert card.matched == len(state())
    assert torch.equal(backbone(images(3)), trained()(images(3)))


def test_the_trained_network_goes_before_its_slow_copy(tmp_path: Path) -> None:
    trained_one = {name: v for name, v in state().items() if "num_batches" not in name}
    both = under("encoder_k.", state(seed=9)) | under("encoder_q.", trained_one)
    save_file(both, tmp_path / "a")  # which sorts by name
    card = load_into(backbones.create("resnet10_tiny", channels=3), tmp_path / "a")
    assert card.prefix == "encoder_q."
    assert card.notes == (
        "the file holds more networks that fit, under 'encoder_k.'; they were not used",
    )


def test_a_name_that_means_nothing_is_found_by_what_matches(tmp_path: Path) -> None:
    save_file(under("some.strange-1.place.", state()), tmp_path / "a")
    backbone = backbones.create("resnet10_tiny", channels=3)
    assert load_into(backbone, tmp_path / "a").prefix == "some.strange-1.place."


def test_every_batch_norm_statistic_comes_along(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "a")
    backbone = backbones.create("resnet10_tiny", channels=3)
    load_into(backbone, tmp_path / "a")
    loaded = backbone.net.state_dict()
    for name, value in state().items():
        assert torch.equal(loaded[name], value), name


def test_a_single_channel_answers_as_three_equal_ones_did(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "a")
    backbone = backbones.create("resnet10_tiny", channels=1).eval()
    card = load_into(backbone, tmp_path / "a")
    expected = trained()(images(1).expand(-1, 3, -1, -1))
    torch.testing.assert_close(backbone(images(1)), expected, rtol=1e-5, atol=1e-5)
    assert card.channels == 3
    assert card.notes == ("first layer: 3 channels summed, over 1",)


def test_three_equal_channels_answer_as_a_single_one_did(tmp_path: Path) -> None:
    save_file(state(channels=1), tmp_path / "a")
    backbone = backbones.create("resnet10_tiny", channels=3).eval()
    load_into(backbone, tmp_path / "a")
    expected = trained(channels=1)(images(1))
    grey = images(1).expand(-1, 3, -1, -1)
    torch.testing.assert_close(backbone(grey), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_librarys_own_file_gives_the_librarys_own_features(library: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    net: nn.Module = (
        torchvision.models.resnet18() if library == "torchvision" else timm.create_model("resnet18")
    )
    torch.save(net.state_dict(), tmp_path / "a.pth")
    net.fc = nn.Identity()
    backbone = backbones.create("resnet18", channels=3).eval()
    card = load_into(backbone, tmp_path / "a.pth")
    torch.testing.assert_close(backbone(images(3)), net.eval()(images(3)), rtol=1e-5, atol=1e-5)
    assert card.unused == 2  # the classifier's weight and bias


def test_the_only_difference_may_be_the_counter_of_old_files(tmp_path: Path) -> None:
    old = {name: value for name, value in state().items() if "num_batches" not in name}
    save_file(old, tmp_path / "a")
    backbone = backbones.create("resnet10_tiny", channels=3).eval()
    load_into(backbone, tmp_path / "a")
    assert torch.equal(backbone(images(3)), trained()(images(3)))


def test_half_precision_is_loaded_as_float32_and_said(tmp_path: Path) -> None:
    halves = {name: v.half() if v.is_floating_point() else v for name, v in state().items()}
    save_file(halves, tmp_path / "a")
    backbone = backbones.create("resnet10_tiny", channels=3)
    assert "float16" in load_into(backbone, tmp_path / "a").notes[0]
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}


def without(name: str) -> State:
    return {key: value for key, value in state().items() if key != name}


DEFECTS: dict[str, tuple[Callable[[], State], str]] = {
    "a missing kernel": (lambda: without("layer3.0.conv2.weight"), "missing layer3.0.conv2.weight"),
    "missing statistics": (lambda: without("bn1.running_mean"), "missing bn1.running_mean"),
    "another width": (
        lambda: state() | {"layer4.0.conv1.weight": torch.zeros(64, 30, 3, 3)},
        r"other shape layer4.0.conv1.weight \(\(64, 30, 3, 3\), not \(64, 32, 3, 3\)\)",
    ),
    "a stem for small images": (
        lambda: state() | {"conv1.weight": torch.zeros(64, 3, 3, 3)},
        r"other shape conv1.weight \(\(64, 3, 3, 3\), not \(64, 3, 7, 7\)\)",
    ),
    "a deeper network": (
        lambda: state() | {"layer3.1.conv1.weight": torch.zeros(32, 32, 3, 3)},
        "not in the network layer3.1.conv1.weight",
    ),
    "a broken training": (
        lambda: state() | {"bn1.weight": torch.full((64,), torch.nan)},
        "not finite numbers in bn1.weight",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_anything_less_than_all_of_it_is_refused_and_listed(defect: str, tmp_path: Path) -> None:
    build, says = DEFECTS[defect]
    torch.save({"state_dict": under("backbone.", build())}, tmp_path / "a.pth")
    backbone = backbones.create("resnet10_tiny", channels=3)
    before = {name: value.clone() for name, value in backbone.net.state_dict().items()}
    with pytest.raises(WeightsError, match=says):
        load_into(backbone, tmp_path / "a.pth")
    assert all(torch.equal(before[name], v) for name, v in backbone.net.state_dict().items())


def test_a_file_of_something_else_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    save_file({"decoder.up.weight": torch.zeros(3)}, tmp_path / "a")
    with pytest.raises(WeightsError, match=r"none of the network's 78 .* decoder\.up\.weight"):
        load_into(backbones.create("resnet10_tiny"), tmp_path / "a")


def test_a_long_list_is_cut_in_the_message_and_counted(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "a")
    with pytest.raises(WeightsError, match=r"; \.\.\. \(\d+ in all\)"):
        load_into(backbones.create("resnet18"), tmp_path / "a")


def test_the_backbone_is_told_by_the_tensors() -> None:
    names = ("resnet10_half", "resnet10_tiny", "resnet18", "resnet34")

    def filled(tensors: Mapping[str, Tensor]) -> list[str]:
        return [name for name, fit in guess(tensors, names).items() if not fit.problems]

    assert filled(under("x.", state())) == ["resnet10_tiny"]
    assert filled(torchvision.models.resnet34().state_dict()) == ["resnet34"]
    assert filled({"conv1.weight": torch.zeros(1)}) == []


def test_one_of_our_runs_loads_by_its_folder_and_tells_its_story(tmp_path: Path) -> None:
    told = {"method": "byol", "backbone": "resnet10_tiny"}
    save_file(state(channels=1), tmp_path / "encoder.safetensors", metadata=told)
    seen = [{"store": "ab", "rows": "12"}, {"store": "cd", "rows": "34"}]
    (tmp_path / "config.json").write_text(json.dumps({"identity": {"data": seen}}))
    card = load_into(backbones.create("resnet10_tiny"), tmp_path)
    assert card.method == "byol"
    assert card.origin == "a hounsfield run of byol"
    assert card.stores == ("ab", "cd")
    assert len(card.sha256) == 64


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"encoder\.safetensors.*finish it"):
        load_into(backbones.create("resnet10_tiny"), tmp_path)


def test_a_published_name_on_other_bytes_is_refused(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "resnet50-0676ba61.pth")
    with pytest.raises(WeightsError, match="damaged or another file"):
        load_into(backbones.create("resnet10_tiny", channels=3), tmp_path / "resnet50-0676ba61.pth")


class Hub:
    """A hub of local files in the place of the network."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[tuple[str, str, str | None]] = []

    def __call__(self, repo: str, name: str, revision: str | None = None) -> str:
        from huggingface_hub.errors import EntryNotFoundError

        self.asked.append((repo, name, revision))
        if not (self.root / repo / name).exists():
            raise EntryNotFoundError(f"404: {name}")
        return str(self.root / repo / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hub)
    return hub


def publish(hub: Hub, repo: str, tensors: State, name: str = "model.safetensors") -> None:
    (hub.root / repo).mkdir(parents=True)
    save_file(tensors, hub.root / repo / name)
    config = '{"pretrained_cfg": {"license": "apache-2.0", "tag": "fb_in22k_ft_in1k"}}'
    (hub.root / repo / "config.json").write_text(config)


def test_a_hub_id_loads_with_its_licence_and_corpus(hub: Hub) -> None:
    publish(hub, "someone/net.v1", state(), "pytorch_model.bin")
    card = load_into(backbones.create("resnet10_tiny", channels=3), "someone/net.v1@main")
    assert card.origin == "Hugging Face hub: someone/net.v1@main"
    assert card.licence == "apache-2.0"
    assert card.corpus == "ImageNet-22k + ImageNet-1k"
    assert {revision for _, _, revision in hub.asked} == {"main"}


def test_imagenet_means_timms_own_weights_of_the_backbone(hub: Hub) -> None:
    publish(hub, "timm/resnet18.a1_in1k", dict(timm.create_model("resnet18").state_dict()))
    card = load_into(backbones.create("resnet18"), weights_source.IMAGENET)
    assert hub.asked[0] == ("timm/resnet18.a1_in1k", "model.safetensors", None)
    assert card.channels == 3


def test_a_backbone_without_imagenet_weights_is_refused() -> None:
    with pytest.raises(WeightsError, match="no ImageNet weights are published"):
        load_into(backbones.create("resnet10_tiny"), weights_source.IMAGENET)


def test_a_hub_that_cannot_be_reached_is_a_weights_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(WeightsError, match=r"could not be had .*no connection"):
        load_into(backbones.create("resnet10_tiny"), "someone/net")


@pytest.mark.parametrize("source", ["missing.pth", "runs/missing.safetensors", "/a/b/missing.pt"])
def test_a_missing_file_is_not_looked_for_on_the_hub(source: str, hub: Hub) -> None:
    with pytest.raises(WeightsError, match=f"no file at {source}"):
        load_into(backbones.create("resnet10_tiny"), source)
    assert hub.asked == []
