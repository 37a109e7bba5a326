"""Pre-trainings that another study has finished: proven to be the same, then copied."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from hounsfield.data.store import Store
from hounsfield.errors import InputError, WeightsError
from hounsfield.files import disk_errors, folder_whole, read_object, sha256_of, write_json
from hounsfield.models.backbone import create
from hounsfield.models.pretrained import load_into
from hounsfield.study.pretraining import Pretraining
from hounsfield.train.log import bar_over
from hounsfield.train.run_folder import ENCODER, RUN, TAKEN, identity, refuse_others
from hounsfield.wording import plural


def check_others(others: Sequence[Path]) -> None:
    """Refuse folders that cannot hold what is asked for.

    Raises:
        InputError: One has no pre-trainings at all.
    """
    for other in others:
        if not (other / "pretrain").is_dir():
            raise InputError(
                f"{other} is no study's folder: there is no {other / 'pretrain'}. Give one with "
                "pre-trainings."
            )


def take(missing: Sequence[Pretraining], out: Path, others: Sequence[Path]) -> None:
    """Copy those of `missing` that `others` have finished into the study's folder `out`.

    What has the right name and is not the right run, whole, is told and left where it is.

    Raises:
        DiskError: The copies cannot be written.
    """
    if not others or not missing:
        return
    taken = 0
    with bar_over("pre-trainings to take over", total=len(missing), done=0) as progress:
        for one in missing:
            source = found(one, others, say=progress.say)
            if source is not None:
                _copy(source, one.place(out))
                taken += 1
            progress.advance()
        progress.say(f"Taken over: {taken} of {plural(len(missing), 'pre-training')} left.")


def found(one: Pretraining, others: Sequence[Path], *, say: Callable[[str], None]) -> Path | None:
    """The folder of the finished run in the first of `others` that has it; None without one.

    Args:
        one: What is looked for.
        others: Studies' folders.
        say: Called with a line for each folder of its name that is not it, or not whole.
    """
    for other in others:
        source = one.place(other)
        if not source.is_dir():
            continue
        try:
            _prove(one, source)
        except InputError as error:
            say(f"Not taken over: {error}")
            continue
        return source
    return None


def _prove(one: Pretraining, source: Path) -> None:
    """Refuse what is not the finished run that the plan wants, by all that decides its outcome.

    Raises:
        OutputError: It is of other settings, stores or patients.
        WeightsError: It has not ended, or its weights are damaged.
    """
    if not (source / RUN).is_file():
        raise WeightsError(f"{source} has not ended; it is trained here from the start.")
    stores = {path: Store.open(path) for path in one.config.stores}
    refuse_others(source, identity(one.config, stores, one.rows()))
    load_into(create(one.config.backbone, channels=one.config.channels), source / ENCODER)
    told = read_object(source / RUN).get("sha256")  # runs of old do not say
    if told not in (None, sha256_of(source / ENCODER)):
        raise WeightsError(f"{source / ENCODER} is not the file that the training wrote.")


def _copy(source: Path, place: Path) -> None:
    """The run's folder, whole, in the place of one that was begun; it says whose it was."""
    if place.exists():
        shutil.rmtree(place)
    with folder_whole(place) as whole:
        with disk_errors(place):
            hidden = shutil.ignore_patterns(".*")
            shutil.copytree(source, whole, ignore=hidden, dirs_exist_ok=True)
        if not (whole / TAKEN).exists():
            study = source.parents[1]
            name = read_object(study / "study.json").get("name", study.name)
            write_json(whole / TAKEN, {"study": name})
