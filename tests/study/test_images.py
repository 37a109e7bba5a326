from collections import Counter

import numpy as np
import torch

from hounsfield.study.images import Batches, by_class, read
from hounsfield.study.plan import plan


def test_images_are_the_stores_in_the_tasks_order(study):
    task = plan(study()).tasks["lesion"]
    images = read(task)
    labels = task.images["label"].to_numpy()
    assert (images.labels.numpy() == labels).all()
    bright = (images.pixels[:, 0] > 120).flatten(1).sum(1).numpy()
    assert bright[labels == 1].min() > bright[labels == 0].max()  # the lesions are where they were


def test_a_batch_holds_as_many_of_each_class_and_every_image_is_seen_equally_often(study):
    task = plan(study()).tasks["lesion"]
    images = read(task)
    places = task.rows(["p00", "p01", "p03"])  # 3 images with, 15 without
    batches = Batches(images, by_class(images, places), batch=10, seed=3)
    seen = Counter()
    for step in range(9):
        drawn = batches.places(step)
        assert np.bincount(images.labels.numpy()[drawn]).tolist() == [5, 5]
        seen.update(drawn.tolist())
    assert set(seen) == set(places.tolist())
    counts = np.array([seen[place] for place in places])
    with_lesion = images.labels.numpy()[places] == 1
    assert set(counts[with_lesion]) == {15}
    assert set(counts[~with_lesion]) == {3}


def test_what_a_step_holds_does_not_depend_on_what_was_loaded_before(study):
    images = read(plan(study()).tasks["lesion"])
    groups = by_class(images, np.arange(40))
    straight = Batches(images, groups, batch=6, seed=1)
    everything = [straight.places(step) for step in range(12)]
    assert (Batches(images, groups, batch=6, seed=1).places(11) == everything[11]).all()
    assert (straight.places(2) == everything[2]).all()
    loaded = straight.load(2)
    assert torch.equal(loaded.labels, images.labels[torch.from_numpy(everything[2])])
