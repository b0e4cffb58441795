"""Numbers as people read them, each with its unit."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def bytes_text(count: float) -> str:
    """`1536` -> `1.50 KiB`; binary units, three significant digits, rounded as the browser's parts round them."""
    nbytes, unit = byte_unit(count)
    size = count / nbytes
    digits = 0 if nbytes == 1 or abs(size) >= 99.95 else 1 if abs(size) >= 9.995 else 2
    return f"{Decimal(size).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)} {unit}"


def byte_unit(count: float) -> tuple[int, str]:
    """The unit that such a number is written in, and its bytes: `1536` -> `(1024, "KiB")`."""
    size, unit = float(count), 0
    while abs(size) >= 999.5 and unit < len(_BYTES) - 1:
        size, unit = size / 1024, unit + 1
    return 1024**unit, _BYTES[unit]


def seconds_text(seconds: float) -> str:
    """`0.0123` -> `12.3 ms`; `75` -> `1 min 15 s`."""
    if seconds >= 60:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def about_text(seconds: float) -> str:
    """A time that is only foretold: `17.3` -> `about 17 s`; `200` -> `about 3 min`; `9000` -> `about 2.5 h`."""
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def rate_text(per_second: float) -> str:
    """`12.34` -> `12.3 tokens/s`; `1234.5` -> `1,234 tokens/s`."""
    return f"{per_second:,.1f} tokens/s" if per_second < 100 else f"{per_second:,.0f} tokens/s"


def count_text(count: int, noun: str) -> str:
    """`(1, "layer")` -> `1 layer`; `(4096, "token")` -> `4,096 tokens`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def moment_text(moment: str) -> str:
    """A moment of ISO 8601 in UTC: `2026-11-30T02:44:08+00:00` -> `2026-11-30 02:44 UTC`."""
    return f"{moment[:16].replace('T', ' ')} UTC"


def percent_text(share: float) -> str:
    """`0.123` -> `12.3%`."""
    return f"{share:.1%}"
