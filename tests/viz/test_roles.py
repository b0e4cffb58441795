from __future__ import annotations

import itertools
import math

import pytest

from viz import roles

PAGES = [*roles.PAGE_LIGHT, *roles.PAGE_DARK]


@pytest.mark.parametrize("name", roles.ROLES)
@pytest.mark.parametrize("page", PAGES)
def test_marks_reach_three_to_one_on_every_page(name: str, page: str) -> None:
    assert roles.contrast(roles.ROLES[name].colour, page) >= 3.0


@pytest.mark.parametrize("page", PAGES)
def test_lines_without_a_role_reach_it_too_and_differ_in_all_they_have(page: str) -> None:
    assert all(roles.contrast(colour, page) >= 3.0 for colour, _, _ in roles.SERIES)
    first = roles.SERIES[:6]
    assert all(len({look[part] for look in first}) == len(first) for part in range(3))


def test_each_role_has_its_own_colour() -> None:
    colours = [role.colour for role in roles.ROLES.values()]
    assert len(set(colours)) == len(colours)


@pytest.mark.parametrize("group", [("sink", "rest", "recent", "learned_sink"), ("lazy", "full")])
def test_bars_of_one_chart_differ_by_pattern_too(group: tuple[str, ...]) -> None:
    patterns = [roles.ROLES[name].pattern for name in group]
    assert len(set(patterns)) == len(patterns)


def test_lines_of_one_chart_differ_by_dash_and_marker_too() -> None:
    for one, other in ((roles.RUN_A, roles.RUN_B), (roles.FULL, roles.LAZY)):
        assert one.dash != other.dash
        assert one.symbol != other.symbol


# Machado, Oliveira and Fernandes (2009), severity 1, linear RGB
BLINDNESS = {
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
}


@pytest.mark.parametrize("group", [("sink", "recent", "rest"), ("lazy", "full"), ("a", "b")])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_roles_of_one_chart_stay_apart_for_the_colour_blind(group: tuple[str, ...], kind: str) -> None:
    for one, other in itertools.combinations(group, 2):
        seen = [_simulated(roles.ROLES[name].colour, BLINDNESS[kind]) for name in (one, other)]
        assert math.dist(*seen) > 0.15, (one, other)


def _simulated(colour: str, matrix: tuple[tuple[float, ...], ...]) -> list[float]:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return [sum(weight * value for weight, value in zip(row, linear, strict=True)) for row in matrix]


@pytest.mark.parametrize("stops", [roles.SEQUENTIAL_LIGHT, roles.SEQUENTIAL_DARK])
def test_sequential_scales_change_steadily_and_carry_readable_ink(stops: tuple[str, ...]) -> None:
    levels = [roles.luminance(stop) for stop in stops]
    assert levels in (sorted(levels), sorted(levels, reverse=True))
    for place in range(101):
        fill = roles.shade(place, 0, 100, stops)
        assert roles.contrast(fill, roles.readable_on(fill)) >= 4.5, fill


def test_shade_is_clipped_and_takes_a_flat_range() -> None:
    assert roles.shade(-5, 0, 1, roles.SEQUENTIAL_LIGHT) == roles.SEQUENTIAL_LIGHT[0]
    assert roles.shade(5, 0, 1, roles.SEQUENTIAL_LIGHT) == roles.SEQUENTIAL_LIGHT[-1]
    assert roles.shade(0.5, 0.5, 0.5, roles.SEQUENTIAL_LIGHT) == roles.SEQUENTIAL_LIGHT[0]


def test_contrast_of_black_and_white_is_twenty_one() -> None:
    assert roles.contrast("#000000", "#FFFFFF") == pytest.approx(21.0)
