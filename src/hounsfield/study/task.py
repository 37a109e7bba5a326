"""A task: which images of a store carry which label, and whose they are."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from hounsfield.config import Config
from hounsfield.data.split import PARTS, Split, Strata, given, strata
from hounsfield.data.store import Store
from hounsfield.data.window import WINDOWS
from hounsfield.errors import ConfigError, LabelError, one_of
from hounsfield.wording import plural

Level = Literal["slice", "series", "patient"]
Pooling = Literal["mean_logit", "mean_probability", "max_odds"]
MOST_CLASSES = 100  # more distinct values than this are measurements or names, not classes


class Bounds(Config):
    """A range that a column's value must lie in; nulls never do.

    Attributes:
        min: The least value that takes part; none is no limit.
        max: The greatest.
    """

    min: float | None = None
    max: float | None = None


class TaskConfig(Config):
    """A task as a study file writes it.

    Attributes:
        store: A name in `[stores]`.
        label: The label column.
        level: What carries one label and is judged: a slice, a series or a patient.
        where: Column -> value, list of values, or `{ min, max }`: only these images take part.
        window: Name of a window in HU; display values are not windowed.
        sided: The label tells left from right, so that no image is mirrored.
        pool: How the scores of a series' or a patient's slices become one: the mean of their
            logits or of their probabilities; or, of two classes, the slice with the highest odds
            of the second speaks for all.
        external: A name in `[stores]`: its labelled images are the test set instead.
    """

    store: str
    label: str
    level: Level = "slice"
    where: dict[str, Bounds | list[str | int | float] | str | int | float | bool] = Field(
        default_factory=dict
    )
    window: str = "wide"
    sided: bool = False
    pool: Pooling = "mean_logit"
    external: str | None = None


@dataclass(frozen=True)
class Task:
    """The labelled images of a task, in the order of their store.

    Attributes:
        name: As in the study file.
        config: As in the study file.
        store: The store's folder.
        external: The external test store's folder, if there is one.
        classes: Names of the classes; a label is a place in this list.
        images: A row an image: `outside` (bool: of the external store), `slice` (row of its
            store), `patient`, `series`, `unit` (int: what is judged as one), `rank` (from
            0 at the volume's feet to 1, null where it is not known), `units`, `split`,
            `label` (int).
        hash: Changes with any image, label or patient that takes part, and with the window.
    """

    name: str
    config: TaskConfig
    store: Path
    external: Path | None
    classes: tuple[str, ...]
    images: pl.DataFrame
    hash: str

    @property
    def inside(self) -> pl.DataFrame:
        """The images that are not of the external store."""
        return self.images.filter(~pl.col("outside"))

    def strata(self) -> dict[str, frozenset[int]]:
        """The classes that each patient carries; external patients are not among them."""
        return strata(self.inside["patient"].to_list(), self.inside["label"].to_list())

    def given_split(self) -> Split:
        """The split of the store's own column.

        With an external store its patients judge, those that the column calls test take no part,
        and those of whom it says nothing train.

        Raises:
            LabelError, LeakError: As `data.split.given`.
        """
        patients, parts = self.inside["patient"].to_list(), self.inside["split"]
        if self.external is None:
            return given(patients, parts.to_list())
        split = given(patients, parts.fill_null("train").to_list(), needed=["train"])
        outside = self.images.filter("outside")["patient"].unique().sort().to_list()
        return Split(split.train, split.val, tuple(outside))

    def rows(self, patients: Sequence[str]) -> NDArray[np.int64]:
        """Places in `images` of these patients, ascending."""
        chosen = self.images["patient"].is_in(list(patients))
        return np.flatnonzero(chosen.to_numpy()).astype(np.int64)


def load(name: str, config: TaskConfig, stores: Mapping[str, Path]) -> Task:
    """The task `name` from its store's index; no image is read.

    Raises:
        ConfigError: An unknown store, label or column.
        LabelError: The labels cannot serve: none, of one class, too many classes, or several
            within one series or patient that should have one.
        StoreError: A store cannot be opened.
    """
    where = f"task {name!r}"
    if config.window not in WINDOWS:
        raise ConfigError(f"{where}: {one_of('window', config.window, WINDOWS)}")
    for store in filter(None, (config.store, config.external)):
        if store not in stores:
            raise ConfigError(f"{where}: {one_of('store', store, stores)}")
    inside = Store.open(stores[config.store])
    outside = Store.open(stores[config.external]) if config.external else None
    table = _labelled(where, config, inside, outside=False)
    if outside is not None:
        table = pl.concat([table, _labelled(where, config, outside, outside=True)])
    classes = _classes(where, config.label, table)
    if config.pool == "max_odds" and len(classes) > 2:
        raise ConfigError(
            f"{where}: pool 'max_odds' takes the highest odds of the second of two classes, and "
            f"{config.label!r} has {len(classes)}. Use mean_logit or mean_probability."
        )
    table = _units(table, config.level).with_columns(
        pl.col("value").replace_strict(list(classes), range(len(classes)), return_dtype=pl.Int32)
        .alias("label"),
    )  # fmt: skip
    table = table.drop("value")
    _check_one_label_a_unit(where, config, table)
    return Task(
        name=name,
        config=config,
        store=stores[config.store],
        external=stores[config.external] if config.external else None,
        classes=classes,
        images=table,
        hash=_hash(config, classes, table, inside, outside),
    )


def _labelled(where: str, config: TaskConfig, store: Store, *, outside: bool) -> pl.DataFrame:
    if config.label not in store.labels:
        raise ConfigError(f"{where}: {one_of('label', config.label, store.labels)} ({store.path})")
    last = pl.col("z").max().over("patient", "series")
    rank = pl.col("z") / last  # a volume of one slice has no order
    ranked = store.index.with_columns(
        pl.when(pl.col("z_mm").is_not_null()).then(rank.fill_nan(0.5)).alias("rank")
    )
    table = ranked.filter(
        pl.col(config.label).is_not_null(),
        *(_condition(where, column, wanted, store) for column, wanted in config.where.items()),
    )
    if table.is_empty():
        raise LabelError(
            f"{where}: no image of {store.path} has a label {config.label!r} and passes `where`. "
            "Widen the filter or ingest with labels."
        )
    return table.select(
        pl.lit(outside).alias("outside"),
        "slice", "patient", "series", "rank", "units", "split",
        pl.col(config.label).cast(pl.String).alias("value"),
    )  # fmt: skip


def _condition(where: str, column: str, wanted: Any, store: Store) -> pl.Expr:
    if column not in store.index.columns:
        raise ConfigError(f"{where}: {one_of('column', column, store.index.columns)}")
    value = pl.col(column)
    numeric = store.index.schema[column].is_numeric()
    if isinstance(wanted, Bounds):
        if not numeric:
            raise ConfigError(
                f"{where}: column {column!r} holds text; `where` takes a value or a list for it."
            )
        low = pl.lit(True) if wanted.min is None else value >= wanted.min
        high = pl.lit(True) if wanted.max is None else value <= wanted.max
        return value.is_not_null() & low & high
    allowed = wanted if isinstance(wanted, list) else [wanted]
    if numeric and any(isinstance(one, str) for one in allowed):
        raise ConfigError(f"{where}: column {column!r} holds numbers; `where` asks for {wanted!r}.")
    plain = numeric or store.index.schema[column] == pl.Boolean
    return value.is_in(allowed if plain else [str(one) for one in allowed])


def _classes(where: str, label: str, table: pl.DataFrame) -> tuple[str, ...]:
    values = table["value"].unique().to_list()
    if not 2 <= len(values) <= MOST_CLASSES:
        mend = "Widen `where`, or take" if len(values) < 2 else "Ingest it in classes, or take"
        raise LabelError(
            f"{where}: label {label!r} has {plural(len(values), 'distinct value')} among the "
            f"images that take part; a task has 2 to {MOST_CLASSES} classes. {mend} another label."
        )
    _check_spelling(where, label, values)
    try:
        return tuple(sorted(values, key=float))
    except ValueError:
        return tuple(sorted(values))


def _check_spelling(where: str, label: str, values: Sequence[str]) -> None:
    """Refuse values that a reader takes for one."""
    alike: dict[str, list[str]] = {}
    for value in sorted(values):
        alike.setdefault(" ".join(value.casefold().split()), []).append(value)
    for same in alike.values():
        if len(same) > 1:
            raise LabelError(
                f"{where}: label {label!r} has the values {' and '.join(map(repr, same))}, which "
                "differ by capitals or spaces alone. Ingest labels with one spelling of each class."
            )


def _units(table: pl.DataFrame, level: Level) -> pl.DataFrame:
    keys = {
        "slice": ["outside", "slice"],
        "series": ["patient", "series"],  # a name of a series may be everybody's
        "patient": ["patient"],
    }[level]
    return table.with_columns(pl.struct(keys).rank("dense").cast(pl.Int64).alias("unit"))


def _check_one_label_a_unit(where: str, config: TaskConfig, table: pl.DataFrame) -> None:
    if config.level == "slice":
        return
    mixed = table.group_by("unit").agg(pl.col("label").n_unique()).filter(pl.col("label") > 1)
    many = "series" if config.level == "series" else ""
    if len(mixed):
        raise LabelError(
            f"{where}: {plural(len(mixed), config.level, many)} with more than one value of "
            f'{config.label!r}; level = "{config.level}" needs one each. Use level = "slice" or '
            "correct the labels."
        )


def _hash(
    config: TaskConfig,
    classes: tuple[str, ...],
    table: pl.DataFrame,
    inside: Store,
    outside: Store | None,
) -> str:
    digest = hashlib.sha256()
    parts = [inside.hash, outside.hash if outside else "", config.window, config.pool, config.level]
    parts += ["sided"] if config.sided else []
    digest.update("\x1f".join([*parts, *classes]).encode())
    for column in ("outside", "slice", "label"):
        digest.update(table[column].cast(pl.Int64).to_numpy().tobytes())
    return digest.hexdigest()[:16]


def count(task: Task, split: Split) -> dict[str, dict[str, dict[str, int]]]:
    """Patients and images of every class in every part: part -> class -> patients, images."""
    carried: Strata = strata(task.images["patient"].to_list(), task.images["label"].to_list())
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for part in PARTS:
        patients = getattr(split, part)
        labels = task.images["label"].to_numpy()[task.rows(patients)]
        counts[part] = {
            name: {
                "patients": sum(label in carried[patient] for patient in patients),
                "images": int((labels == label).sum()),
            }
            for label, name in enumerate(task.classes)
        }
    return counts
