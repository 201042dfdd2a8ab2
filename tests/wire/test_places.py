"""The places of large bodies: within the area, apart from each other, and nothing else is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.wire.places import (
    AREA,
    SHARED_FROM,
    WORTH_SHARING,
    Body,
    Misplaced,
    Place,
    check_places,
    large_ones,
    lay_out,
    room_for,
)

SIZES = st.lists(
    st.integers(0, 200_000) | st.integers(SHARED_FROM - 2, SHARED_FROM + 2) | st.integers(0, AREA + 1), max_size=20
)


def bodies(sizes: list[int]) -> list[Body]:
    return [(position // 3, position % 3, size) for position, size in enumerate(sizes)]


@given(SIZES, st.integers(0, 1 << 21) | st.just(AREA))
def test_what_is_laid_out_passes_the_check(sizes: list[int], room: int) -> None:
    places = lay_out(large_ones(bodies(sizes)), room)
    check_places(places, room)
    sized = {(item, part): size for item, part, size in bodies(sizes)}
    assert all(sized[place.item, place.part] == place.size >= SHARED_FROM for place in places)


@given(SIZES)
def test_what_is_asked_for_is_enough_for_all_of_them(sizes: list[int]) -> None:
    large = large_ones(bodies(sizes))
    room = room_for(large)
    assert room <= AREA
    if room < AREA:
        assert len(lay_out(large, room)) == len(large)


@pytest.mark.parametrize(
    ("sizes", "large"),
    [
        ([], []),
        ([WORTH_SHARING - 1], []),
        ([WORTH_SHARING], [WORTH_SHARING]),
        ([SHARED_FROM - 1] * 100, []),
        ([SHARED_FROM, SHARED_FROM], []),
        ([SHARED_FROM, 5, WORTH_SHARING - SHARED_FROM], [SHARED_FROM, WORTH_SHARING - SHARED_FROM]),
    ],
)
def test_bodies_are_worth_it_together(sizes: list[int], large: list[int]) -> None:
    assert [size for _, _, size in large_ones(bodies(sizes))] == large


def test_a_body_that_does_not_fit_leaves_its_room_to_the_next() -> None:
    places = lay_out([(0, 0, 100_000), (1, 0, 100_000), (2, 0, 50_000)], 160_000)
    assert [place.item for place in places] == [0, 2]


@pytest.mark.parametrize(
    "places",
    [
        [Place(0, 0, -64, 64)],
        [Place(0, 0, 0, 0)],
        [Place(0, 0, 0, -1)],
        [Place(0, 0, 0, 1001)],
        [Place(0, 0, 1000, 1)],
        [Place(0, 0, 1 << 62, 1 << 62)],
        [Place(0, 0, 0, 100), Place(1, 0, 99, 10)],
        [Place(0, 0, 200, 100), Place(1, 0, 0, 10)],
        [Place(0, 0, 0, 100), Place(0, 0, 100, 10)],
    ],
)
def test_other_places_are_not_believed(places: list[Place]) -> None:
    with pytest.raises(Misplaced):
        check_places(places, 1000)
