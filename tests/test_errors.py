from hounsfield import errors
from hounsfield.errors import HounsfieldError, one_of


def test_the_drawn_tree_is_the_real_tree() -> None:
    def walk(kind: type[HounsfieldError]) -> list[type[HounsfieldError]]:
        return [kind, *(below for child in kind.__subclasses__() for below in walk(child))]

    assert errors.__doc__ is not None
    drawn = [
        word
        for line in errors.__doc__.splitlines()
        for word in line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()[:1]
        if word.endswith(("Error", "InterruptedRun"))
    ]
    assert drawn == [kind.__name__ for kind in walk(HounsfieldError)]


def test_exit_codes_are_those_of_the_docs() -> None:
    assert {kind.__name__: kind.exit_code for kind in HounsfieldError.__subclasses__()} == {
        "InputError": 2,
        "TrainingError": 3,
        "MachineError": 4,
        "InterruptedRun": 130,
    }


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    assert one_of("method", "moco", ["moco_v2", "byol", "spark"]) == (
        "unknown method 'moco'. Did you mean 'moco_v2'? Allowed: byol, moco_v2, spark."
    )


def test_of_a_long_list_the_nearest_names_are_enough() -> None:
    names = [f"net{number:02d}" for number in range(30)]
    assert one_of("backbone", "zzz", names).endswith(
        f" 30 are known, the first: {', '.join(names[:24])}."
    )
    assert one_of("backbone", "net7", names) == (
        "unknown backbone 'net7'. Did you mean 'net27' or 'net17' or 'net07'? 30 are known."
    )
