import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hounsfield.seeding import seed_of, stream

purposes = st.lists(st.text(max_size=5) | st.integers(0, 50), max_size=3)


@given(st.integers(0, 2**32), purposes, purposes)
def test_streams_are_equal_only_for_equal_purposes(
    seed: int, one: list[str | int], other: list[str | int]
) -> None:
    assert (seed_of(seed, *one) == seed_of(seed, *other)) == (
        [(type(part), part) for part in one] == [(type(part), part) for part in other]
    )


def test_a_stream_does_not_depend_on_what_ran_before() -> None:
    first = stream(3, "views", 10).random(4)
    np.random.default_rng(0).random(100)
    stream(3, "views", 9).random(100)
    assert (stream(3, "views", 10).random(4) == first).all()


def test_a_seed_is_the_same_on_every_machine() -> None:
    assert seed_of(0, "ladder", 1) == 2810768778391573581


def test_seeds_fit_torch_and_numpy() -> None:
    assert all(0 <= seed_of(seed, "x") < 2**63 for seed in range(1000))
