"""Where the arms' weights from outside come from, known before anything is trained."""

from collections.abc import Iterator, Mapping

from hounsfield.data.store import Store
from hounsfield.errors import WeightsError
from hounsfield.models.backbone import create
from hounsfield.models.pretrained import Card, load_into
from hounsfield.study.config import IMAGENET, StudyConfig
from hounsfield.study.task import Task
from hounsfield.train.run_folder import RANDOM

HARMLESS = "ImageNet"  # a corpus of this name holds no patients


def cards_of(config: StudyConfig) -> dict[str, Card]:
    """The card of every arm whose weights, or the start of whose pre-training, were there before.

    Each is loaded once, so what does not fit is refused now and not after the pre-trainings.

    Raises:
        WeightsError: An arm's weights do not fill the backbone, or cannot be had.
    """
    starts = {name: str(run.get("init", RANDOM)) for name, run in config.pretrain.items()}
    started = {name: init for name, init in starts.items() if init != RANDOM}
    sources = {IMAGENET: IMAGENET, **config.weights, **started}
    return {arm: _card(arm, sources[arm], config) for arm in config.arms if arm in sources}


def _card(arm: str, source: str, config: StudyConfig) -> Card:
    try:
        return load_into(create(config.backbone), source)
    except WeightsError as error:
        raise WeightsError(f"arm {arm!r}: {error}") from None


def doubts(cards: Mapping[str, Card], tasks: Mapping[str, Task]) -> Iterator[str]:
    """A sentence for every arm whose weights may have seen test patients."""
    for arm, card in cards.items():
        if card.stores:
            shared = [name for name, task in tasks.items() if _hashes(task) & set(card.stores)]
            if shared:
                yield (
                    f"Arm {arm!r}: test patients possibly seen. Its weights were trained on a "
                    f"store of {', '.join(shared)}; whom they left out is not known here."
                )
        elif not card.corpus:
            yield (
                f"Arm {arm!r}: test patients possibly seen. What its weights were trained on is "
                "not known."
            )
        elif not card.corpus.startswith(HARMLESS):
            yield (
                f"Arm {arm!r}: test patients possibly seen, if they are of {card.corpus}, on which "
                "its weights were trained."
            )


def _hashes(task: Task) -> set[str]:
    return {Store.open(path).hash for path in (task.store, task.external) if path is not None}
