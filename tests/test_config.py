from pathlib import Path

import pytest
from pydantic import PositiveFloat

from hounsfield.config import Config, load
from hounsfield.errors import ConfigError


class Optim(Config):
    lr: float = 0.1
    momentum: float = 0.9


class Run(Config):
    seed: int
    optim: Optim = Optim()
    tasks: tuple[Optim, ...] = ()


def written(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_a_file_and_overrides_make_one_config(tmp_path: Path) -> None:
    path = written(tmp_path, "seed = 1\n[optim]\nlr = 0.5\n")
    assert load(Run, path, overrides=["optim.momentum=0.8", "seed=7"]) == Run(
        seed=7, optim=Optim(lr=0.5, momentum=0.8)
    )


def test_an_override_that_is_not_toml_is_text() -> None:
    class Named(Config):
        name: str

    assert load(Named, overrides=["name=spark"]).name == "spark"


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Run(seed=1).seed = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "seed = 1\nsed = 2\n",
            "{path}: unknown key 'sed'. Did you mean 'seed'? Allowed: optim, seed, tasks.",
        ),
        (
            "seed = 1\n[optim]\nlearning_rate = 2\n",
            "{path}: unknown key 'learning_rate' in optim. Allowed: lr, momentum.",
        ),
        (
            "seed = 1\n[[tasks]]\nmomentun = 2\n",
            "{path}: unknown key 'momentun' in tasks.0. Did you mean 'momentum'? "
            "Allowed: lr, momentum.",
        ),
        ("[optim]\nlr = 1\n", "{path}: seed is missing. Add it."),
        (
            "seed = 'x'\n",
            "{path}: seed = 'x' is not allowed: Input should be a valid integer, "
            "unable to parse string as an integer",
        ),
    ],
)
def test_what_is_not_allowed_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as refusal:
        load(Run, path)
    assert str(refusal.value) == message.format(path=path)


def test_a_value_that_fits_no_kind_is_said_by_its_key_alone() -> None:
    class Rates(Config):
        lr: PositiveFloat | tuple[PositiveFloat, ...]

    with pytest.raises(ConfigError) as refusal:
        load(Rates, overrides=["lr=fast"])
    assert str(refusal.value) == (
        "settings: lr = 'fast' is not allowed: Input should be a valid number, unable to parse "
        "string as a number; lr = 'fast' is not allowed: Input should be a valid tuple"
    )


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(ConfigError) as refusal:
        load(Run, path)
    assert str(refusal.value) == f"no config file at {path}. Give the path of a TOML file."


def test_what_is_not_toml_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, "seed = = 1")
    with pytest.raises(ConfigError, match="is not TOML: "):
        load(Run, path)


def test_deep_nesting_is_refused_not_a_crash(tmp_path: Path) -> None:
    path = written(tmp_path, "seed = " + "[" * 100_000)
    with pytest.raises(ConfigError):
        load(Run, path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "#" * 1_000_001)
    with pytest.raises(ConfigError, match="a config has at most 1000000"):
        load(Run, path)


def test_a_key_that_would_fill_the_memory_is_refused_unread(tmp_path: Path) -> None:
    path = written(tmp_path, "seed = 1\n" + "a." * 200_000 + "b = 1")
    with pytest.raises(ConfigError, match="200000 dots in line 2; at most 100 are read"):
        load(Run, path)


@pytest.mark.parametrize("override", ["seed", "=3"])
def test_an_override_without_key_or_value_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="is not of the form key=value"):
        load(Run, overrides=[override])


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="'seed' is a value, not a table"):
        load(Run, overrides=["seed=1", "seed.x=2"])


def test_of_many_faults_the_first_three_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, "seed = 1\n" + "".join(f"x{number} = 1\n" for number in range(8)))
    with pytest.raises(ConfigError) as refusal:
        load(Run, path)
    assert str(refusal.value).count("unknown key") == 3
    assert str(refusal.value).endswith("; and 5 more")
