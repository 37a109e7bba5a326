import json

import pytest
import torch
from safetensors.torch import save_file

from hounsfield.data.store import Store
from hounsfield.errors import WeightsError
from hounsfield.models.backbone import create
from hounsfield.study.config import load_study
from hounsfield.study.plan import plan
from hounsfield.study.record import write_plan


def weights(path, *, backbone="resnet10_tiny", **told):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(create(backbone, seed=3).net.state_dict()), path, metadata=told or None)
    return str(path)


def doubts(planned):
    return [warning for warning in planned.warnings if "possibly seen" in warning]


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({}, "possibly seen. What its weights were trained on is not known."),
        ({"corpus": "LIDC-IDRI"}, "possibly seen, if they are of LIDC-IDRI"),
        ({"corpus": "ImageNet-1k"}, ""),
        ({"stores": '["of another hospital"]'}, ""),
    ],
)
def test_an_arm_that_may_have_seen_test_patients_is_said(study, tmp_path, told, says):
    file = weights(tmp_path / "a.safetensors", **told)
    told_of = doubts(plan(study(arms=["scratch", "mine"], weights={"mine": file})))
    assert len(told_of) == bool(says)
    assert all(warning.startswith("Arm 'mine': test patients ") for warning in told_of)
    assert all(says in warning for warning in told_of)


def test_a_run_on_the_tasks_own_store_is_said(study, store, tmp_path):
    run = tmp_path / "run"
    weights(run / "encoder.safetensors", method="byol")
    seen = {"identity": {"data": [{"store": Store.open(store).hash}]}}
    (run / "config.json").write_text(json.dumps(seen))
    planned = plan(study(arms=["scratch", "mine"], weights={"mine": str(run)}))
    assert "Its weights were trained on a store of lesion" in doubts(planned)[0]
    assert planned.cards["mine"].method == "byol"


def test_weights_that_do_not_fit_are_refused_before_anything_runs(study, tmp_path):
    file = weights(tmp_path / "a.safetensors", backbone="resnet10_half")
    with pytest.raises(WeightsError, match=r"^arm 'mine': .* does not fill a resnet10_tiny"):
        plan(study(arms=["scratch", "mine"], weights={"mine": file}))


def test_other_weights_are_other_cells(study, tmp_path):
    one, two = tmp_path / "a.pt", tmp_path / "b.pt"
    for seed, path in enumerate((one, two)):
        torch.save(create("resnet10_tiny", seed=seed).net.state_dict(), path)
    first, second = (
        {cell.hash for cell in plan(study(arms=["mine"], weights={"mine": str(path)})).cells}
        for path in (one, two)
    )
    assert not first & second


def test_the_study_keeps_the_card(study, tmp_path):
    file = weights(tmp_path / "a.safetensors", licence="CC BY 4.0", origin="somebody")
    planned = plan(study(arms=["scratch", "mine"], weights={"mine": file}))
    write_plan(planned, tmp_path, leaks=[])
    arms = json.loads((tmp_path / "study.json").read_text())["arms"]
    assert arms["scratch"]["card"] is None
    assert arms["mine"]["card"]["licence"] == "CC BY 4.0"
    assert arms["mine"]["card"]["origin"] == "somebody"
    assert arms["mine"]["card"]["sha256"] == planned.cards["mine"].sha256


def test_a_study_file_names_weights_beside_it_or_on_a_hub(store, tmp_path):
    weights(tmp_path / "a.safetensors")
    (tmp_path / "study.toml").write_text(
        f'stores = {{ ct = "{store}" }}\narms = ["near", "far"]\n'
        '[weights]\nnear = "a.safetensors"\nfar = "somebody/net@v1"\n'
        '[pretrain.byol]\ninit = "a.safetensors"\n[pretrain.swav]\ninit = "imagenet"\n'
        '[tasks.lesion]\nstore = "ct"\nlabel = "lesion"\n'
    )
    config = load_study(tmp_path / "study.toml")
    assert config.weights == {"near": str(tmp_path / "a.safetensors"), "far": "somebody/net@v1"}
    starts = {name: run["init"] for name, run in config.pretrain.items()}
    assert starts == {"byol": str(tmp_path / "a.safetensors"), "swav": "imagenet"}
