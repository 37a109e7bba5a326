"""Every method keeps every promise, and the contract notices one that does not."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from hounsfield import cli
from hounsfield.config import Config
from hounsfield.errors import ConfigError
from hounsfield.methods import METHODS, find
from hounsfield.methods.base import Method, Step
from hounsfield.methods.contract import PROMISES, Subject, check, findings

WRITTEN_OUT = ["byol", "moco_v2", "spark", "swav"]
SMALL = {"spark": {"decoder_width": 32}, "byol": {"hidden_dim": 64}, "swav": {"hidden_dim": 64}}


def test_the_list_written_out_here_is_the_list_of_methods():
    assert sorted(METHODS) == WRITTEN_OUT


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_every_method_keeps_every_promise(name, promise):
    assert findings(promise, Subject(find(name), SMALL.get(name, {}))) == []


class NoConfig(Config):
    pass


class Brightness(Method):
    """From outside: predicts a view's mean from its features. Keeps every promise."""

    name = "brightness"
    config_class = NoConfig
    recipe = "two_views"

    def __init__(self, backbone, config, *, image_size, corpus_size):
        super().__init__()
        self.backbone = backbone
        self.readout = nn.Linear(backbone.embed_dim, 1)

    def forward(self, views: Sequence[Tensor]) -> Step:
        if not views:
            raise ConfigError("brightness got no views and takes at least one.")
        errors = [
            (self.readout(self.backbone(view))[:, 0] - view.mean(dim=(1, 2, 3))) for view in views
        ]
        return Step(torch.cat(errors).square().mean())


def test_a_method_from_outside_that_keeps_every_promise_passes():
    check(Brightness)


class Detached(Brightness):
    def forward(self, views):
        step = super().forward([view * 0 + self.backbone(view).detach().mean() for view in views])
        self.backbone.requires_grad_(False)
        return step


class Unreduced(Brightness):
    def forward(self, views):
        step = super().forward(views)
        return Step(step.loss.repeat(2))


class Frozen(Brightness):
    def forward(self, views):
        step = super().forward(views)
        return Step(step.loss - step.loss.detach() + self.readout.weight.sum() * 0 + 1)


class Forgetful(Brightness):
    def __init__(self, *args, **facts):
        super().__init__(*args, **facts)
        self.steps = 0

    def forward(self, views):
        step = super().forward(views)
        return Step(step.loss * (1 + self.steps))

    def after_step(self, progress):
        self.steps += 1


class Watching(Brightness):
    def __init__(self, *args, **facts):
        super().__init__(*args, **facts)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, views):
        step = super().forward(views)
        self.passes += 1
        return step


class Private(Brightness):
    def __init__(self, *args, **facts):
        super().__init__(*args, **facts)
        self.chance = torch.Generator()

    def forward(self, views):
        step = super().forward(views)
        return Step(step.loss * (1 + torch.rand((), generator=self.chance)))


class Grey(Brightness):
    def forward(self, views):
        step = super().forward(views)
        return Step(step.loss / (1 if views[0].shape[1] == 1 else 0))


class Coarse(Brightness):
    def forward(self, views):
        step = super().forward(views)
        return Step(step.loss + 1000 * torch.is_autocast_enabled("cpu"))


class Greedy(Brightness):
    def forward(self, views):
        return super().forward(views) if views else Step(torch.zeros(()))


class Needy(Brightness):
    class config_class(Config):  # noqa: N801 - the attribute's name
        width: int


BREAKING = {
    "declares_itself": Needy,
    "gives_a_finite_scalar_loss": Unreduced,
    "moves_the_whole_backbone": Detached,
    "goes_down_on_a_fixed_batch": Frozen,
    "goes_on_from_its_state_dict": Forgetful,
    "measures_without_learning": Watching,
    "takes_its_chance_from_torch": Private,
    "sees_every_channel": Grey,
    "bears_half_precision": Coarse,
    "refuses_views_that_it_cannot_use": Greedy,
}


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_is_broken_by_a_method_made_to_break_it(promise):
    assert findings(promise, Subject(BREAKING[promise])) != []


def test_a_broken_contract_is_refused_with_the_promise_and_the_finding():
    sentence = "refuses views that it cannot use: no views at all were accepted"
    with pytest.raises(ConfigError, match=f"^method Greedy breaks the contract. {sentence}$"):
        check(Greedy)


class Half(Brightness):
    def forward(self, views):
        step = super().forward(views)
        return Step(step.loss + 0 * torch.pdist(self.backbone(views[0]))[0])


def test_an_exception_on_the_way_is_a_broken_promise():
    (found,) = findings("bears_half_precision", Subject(Half))
    assert found.startswith("NotImplementedError: ")


def test_the_verb_checks_a_method_from_outside(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(
        "from hounsfield.methods.moco_v2 import MoCoV2\n\nclass Mine(MoCoV2):\n    name = 'mine'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.argv", ["hounsfield", "contract", "mine:Mine"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == "mine:Mine keeps all 10 promises.\n"


def test_a_method_is_found_by_import_path_and_by_entry_point(monkeypatch):
    from importlib.metadata import EntryPoint

    point = EntryPoint("mine", "hounsfield.methods.byol:BYOL", "hounsfield.methods")
    monkeypatch.setattr("hounsfield.methods.entry_points", lambda group: [point])
    assert find("mine") is find("hounsfield.methods.byol:BYOL") is find("byol")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("moco", r"unknown method 'moco'\. Did you mean 'moco_v2'.*package\.module:Class"),
        ("nowhere:Thing", "cannot be imported: No module named 'nowhere'"),
        ("hounsfield.methods.byol:BYOLConfig", "not a class derived from hounsfield.methods"),
    ],
)
def test_what_is_not_a_method_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        find(name)
