import numpy as np
import pytest
import torch

from hounsfield.models import probe
from hounsfield.seeding import stream

LABELS = np.arange(300) % 3
FITTED = np.arange(300) < 150
NOISE = torch.from_numpy(stream(0, "features").normal(size=(300, 8)))


@pytest.mark.parametrize("judge", [probe.knn, probe.linear])
def test_features_that_hold_the_label_are_worth_all_and_noise_is_worth_nothing(judge):
    telling = torch.nn.functional.one_hot(torch.from_numpy(LABELS), 8) + 0.1 * NOISE
    assert judge(telling, LABELS, fitted=FITTED) == pytest.approx(1.0, abs=1e-6)
    assert judge(NOISE, LABELS, fitted=FITTED) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("judge", [probe.knn, probe.linear])
def test_only_the_fitted_images_teach(judge):
    swapped = np.where(FITTED, LABELS, (LABELS + 1) % 3)
    telling = torch.nn.functional.one_hot(torch.from_numpy(LABELS), 8) + 0.1 * NOISE
    assert judge(telling, swapped, fitted=FITTED) < 0.5


@pytest.mark.parametrize("judge", [probe.knn, probe.linear])
def test_a_class_that_cannot_be_judged_gives_no_number(judge):
    one_kind = np.where(FITTED, LABELS, 0)
    assert np.isnan(judge(NOISE, one_kind, fitted=FITTED))
