import os
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
from ct_files import picture, save, slice_of
from deadly import die_at_once, double

import hounsfield
from hounsfield.data.workers import Death, Staff, _Slate
from hounsfield.errors import WorkerError


def test_a_death_and_a_hang_cost_their_task_and_name_their_file() -> None:
    tasks = deque(range(7))
    with Staff(2, file_limit_s=4.0) as staff:
        outcomes = dict(staff.each(double, tasks))
    deaths = {task: one for task, one in outcomes.items() if isinstance(one, Death)}
    assert {task: outcomes[task] for task in outcomes if task not in deaths} == {
        task: 2 * task for task in (0, 1, 2, 5, 6)
    }
    assert deaths[3] == Death("file 3", "its reader died (exit code -11)")
    assert deaths[4].file == "file 4"
    assert deaths[4].reason.startswith("its reader hung for ")
    assert len(deaths) == 2


def test_a_new_file_is_never_seen_with_the_time_of_the_one_before() -> None:
    slate = _Slate()
    slate._since.value = -1e6
    seen = []

    class Seen:
        def __setattr__(self, _name: str, _file: object) -> None:
            seen.append(slate.seconds)

    slate._file = Seen()
    slate.write("1.dcm")
    assert seen[0] < 1e6


def test_what_is_added_on_the_way_is_done_too() -> None:
    tasks = deque([1])
    seen = []
    with Staff(1) as staff:
        for task, outcome in staff.each(double, tasks):
            seen.append(outcome)
            if task == 1:
                tasks.append(10)
    assert seen == [2, 20]


def test_workers_that_die_before_they_begin_end_the_run() -> None:
    tasks = deque([1])

    def insist(staff: Staff) -> None:
        for task, _ in staff.each(die_at_once, tasks):
            tasks.append(task)

    with Staff(1) as staff, pytest.raises(WorkerError, match="exit code 7"):
        insist(staff)


SCRIPT = """
from pathlib import Path
from hounsfield.data.ingest import ingest
ingest([Path("scans")], Path("store"), keep_ids=True)
"""


def test_a_script_without_a_guard_is_told_what_it_lacks(tmp_path: Path) -> None:
    save(slice_of(picture()), tmp_path / "scans" / "1.dcm")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(hounsfield.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == (
        "hounsfield.errors.WorkerError: worker processes die before they read a file (its reader "
        "died (exit code 1)). A script must be a file, with its work below `if __name__ == "
        '"__main__":`, because every process that it starts imports it.'
    )
