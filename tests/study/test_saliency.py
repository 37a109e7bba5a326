import json

import numpy as np
import torch

from hounsfield.models.backbone import create
from hounsfield.study.classifier import Classifier
from hounsfield.study.plan import plan
from hounsfield.study.run import run
from hounsfield.study.saliency import grad_cam, write_saliency
from hounsfield.study.worker import Worker


def classifier() -> Classifier:
    model = Classifier(create("resnet10_tiny", seed=3), 2).eval()
    torch.nn.init.normal_(model.head.weight, 0.3, generator=torch.Generator().manual_seed(1))
    return model


def written_out(model: Classifier, view: torch.Tensor, label: int) -> np.ndarray:
    """Grad-CAM by hand: the last feature map, weighted by its mean gradients, its negatives cut."""
    features = model.backbone.net.forward_features(view).detach().requires_grad_()
    logits = model.head(model.backbone.net.forward_head(features, pre_logits=True))
    (gradient,) = torch.autograd.grad(logits[0, label], features)
    cam = (gradient.mean(dim=(2, 3), keepdim=True) * features).sum(1, keepdim=True).relu()
    cam = torch.nn.functional.interpolate(cam, view.shape[-2:], mode="bilinear")[0, 0]
    return (cam / cam.max()).detach().numpy()


def test_the_map_is_grad_cam_written_out_by_hand():
    model = classifier()
    view = torch.randn((1, 1, 64, 64), generator=torch.Generator().manual_seed(2))
    found = grad_cam(model, view.clone(), 0)
    assert found.min() >= 0
    assert found.max() == 1
    np.testing.assert_allclose(found, written_out(model, view, 0), atol=1e-5)
    assert grad_cam(model, view.clone(), 1).max() == 0  # nothing in this image speaks for it


def test_asking_for_a_map_leaves_the_mode_of_the_model():
    model = classifier().train()
    grad_cam(model, torch.zeros((1, 1, 64, 64)), 0)
    assert model.training


def test_mistakes_of_networks_get_a_map_and_those_of_controls_do_not(study, tmp_path):
    planned = plan(study(arms=["scratch", "histogram"], repeats=1, fractions=[1.0]))
    run(planned, tmp_path)
    listed = tmp_path / "pictures" / "pictures.json"
    pictures = json.loads(listed.read_text())
    one = next(entry for entry in pictures["mistakes"] if entry["arm"] == "scratch")
    pictures["mistakes"].append({**one, "arm": "histogram"})
    listed.write_text(json.dumps(pictures))
    count = write_saliency(planned, tmp_path)
    after = json.loads(listed.read_text())["mistakes"]
    assert count == sum(entry["arm"] == "scratch" for entry in after) > 0
    for entry in after:
        if entry["arm"] == "scratch":
            assert (listed.parent / entry["saliency"]).read_bytes().startswith(b"\x89PNG")
        else:
            assert "saliency" not in entry


def test_maps_stay_when_the_study_is_run_again_without_them(study, tmp_path, monkeypatch):
    planned = plan(study(arms=["scratch"], repeats=1, fractions=[1.0]))
    run(planned, tmp_path)
    count = write_saliency(planned, tmp_path)
    listed = tmp_path / "pictures" / "pictures.json"
    before = listed.read_bytes()
    run(planned, tmp_path)
    assert listed.read_bytes() == before
    monkeypatch.setattr(Worker, "train", None)  # would fail if a model were trained again
    assert write_saliency(planned, tmp_path) == count > 0


def test_a_study_without_pictures_gets_no_map_and_no_list(study, tmp_path):
    listed = tmp_path / "pictures" / "pictures.json"
    assert write_saliency(plan(study()), tmp_path) == 0
    assert not listed.exists()


def test_a_map_of_another_model_is_not_taken_for_this_ones(study, tmp_path):
    planned = plan(study(arms=["scratch"], repeats=1, fractions=[1.0]))
    run(planned, tmp_path)
    write_saliency(planned, tmp_path)
    other = plan(study(arms=["scratch"], repeats=1, fractions=[1.0], seed=1))
    run(other, tmp_path)
    mistakes = json.loads((tmp_path / "pictures" / "pictures.json").read_text())["mistakes"]
    assert mistakes
    assert not any("saliency" in entry for entry in mistakes)
