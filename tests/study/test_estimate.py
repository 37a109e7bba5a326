import math
from types import SimpleNamespace

import numpy as np
import pytest

from hounsfield.study import estimate as estimating
from hounsfield.study.estimate import Estimate, estimate, visible
from hounsfield.study.plan import plan
from hounsfield.study.run import run

SPARK = {
    "spark": {
        "budget": {"steps": 3}, "batch_size": 8, "image_size": 64, "options": {"decoder_width": 32}
    }
}  # fmt: skip


def test_a_dry_run_counts_what_is_left_and_writes_nothing(study, tmp_path):
    planned = plan(study(arms=["scratch", "spark"], pretrain=SPARK))
    seen = estimate(planned, tmp_path / "out")
    assert (seen.cells, seen.cells_left, seen.pretrainings_left) == (8, 8, 1)
    assert seen.pretrain_hours > 0
    assert seen.cell_hours > 0
    assert (seen.patients, seen.comparisons) == (4, 1)
    assert not (tmp_path / "out").exists()
    text = "\n".join(seen.lines())
    assert "cells: 8, of which 8 are left\n  lesion, fair: scratch, spark; 4 cells each\n" in text
    assert "note: All repeats share one checkpoint per pre-trained arm" in text
    assert "with 4 test patients, 2 repeats and 1 comparison" in text


def test_each_group_of_a_dry_run_tells_how_many_cells_its_arms_have():
    cells = [SimpleNamespace(task="lesion", protocol="fair", arm=arm)
             for arm in ("theirs", "ours", "ours", "scratch", "scratch")]  # fmt: skip
    theirs, ours = estimating._groups(SimpleNamespace(cells=cells))
    assert theirs == ("lesion", "fair", ("theirs",), 1)
    assert ours == ("lesion", "fair", ("ours", "scratch"), 2)


def test_a_study_that_can_show_nothing_says_so():
    seen = Estimate(
        groups=(), warnings=(), cells=1, cells_left=1,
        pretrainings_left=0, pretrainings_taken=0, pretrain_hours=0.0, cell_hours=0.0,
        disk_bytes=0, patients=2, repeats=1, smallest_effect=visible(2, 1, 1), comparisons=1,
    )  # fmt: skip
    assert seen.smallest_effect > 1
    assert "smallest visible effect: none whatever" in list(seen.lines())[-1]


def test_a_dry_run_of_a_finished_study_has_nothing_left(study, tmp_path):
    planned = plan(study(repeats=1, fractions=[1.0]))
    run(planned, tmp_path)
    seen = estimate(planned, tmp_path)
    assert (seen.cells_left, seen.cell_hours, seen.pretrain_hours) == (0, 0, 0)
    assert math.isnan(seen.smallest_effect)  # a single arm is compared with nothing


def test_more_patients_and_repeats_see_smaller_effects_and_more_comparisons_larger_ones():
    base = visible(16, 5, 1)
    # two-sided t on about 15 degrees of freedom: (2.13 + 0.87) standard errors
    assert base == pytest.approx(3.0 * np.sqrt(0.058 / 16 + (0.0007 + 0.027 / 16) / 5), rel=0.08)
    assert visible(50, 5, 1) < base < visible(10, 5, 1)
    assert visible(16, 10, 1) < base < visible(16, 5, 4)
