from __future__ import annotations

import pytest

from viz import units


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (23 * 1024**2, "23.0 MiB"),
        (11_796_480, "11.3 MiB"),
        (1000 * 1024**2, "0.98 GiB"),
        (5 * 1024**4, "5.00 TiB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert units.bytes_text(count) == text
    assert text.endswith(f" {units.byte_unit(count)[1]}")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0123, "12.3 ms"), (0.25, "250 ms"), (1.26, "1.3 s"), (75, "1 min 15 s"), (59.96, "60.0 s")]
)
def test_seconds(seconds: float, text: str) -> None:
    assert units.seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "about 1 s"), (17.3, "about 17 s"), (89, "about 89 s"), (200, "about 3 min"), (9000, "about 2.5 h")],
)
def test_times_that_are_foretold(seconds: float, text: str) -> None:
    assert units.about_text(seconds) == text


def test_counts_and_shares() -> None:
    assert units.count_text(1, "layer") == "1 layer"
    assert units.count_text(4096, "token") == "4,096 tokens"
    assert units.percent_text(0.1234) == "12.3%"


def test_rates() -> None:
    assert units.rate_text(12.34) == "12.3 tokens/s"
    assert units.rate_text(1234.5) == "1,234 tokens/s"


def test_a_moment() -> None:
    assert units.moment_text("2026-11-30T02:44:08+00:00") == "2026-11-30 02:44 UTC"
