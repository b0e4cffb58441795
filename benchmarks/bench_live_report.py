"""What the live benchmark found, in words: medians over rounds beside the bars."""

from __future__ import annotations

import statistics
from typing import Any

ONE_CLIENT = 0.95
CROWD = 0.8
DISPLAY_CPU_S_PER_TOKEN = 0.5 / 400
LATENCY_S = 0.15


def markdown(found: dict[str, Any]) -> str:
    rounds, machine = found["rounds"], found["machine"]
    crowd, browser = rounds["a crowd"], rounds["a browser"]
    ages = [age for one in browser for age in one["latency_s"]]
    tiles = [seconds for one in crowd for seconds in one["tile_s"]]
    reruns = [seconds for one in crowd for seconds in one["rerun_s"]]
    display, bar_s = _middle(browser, "display_cpu_s"), DISPLAY_CPU_S_PER_TOKEN * found["new_tokens"]
    reruns_per_s = sum(one["reruns"] for one in crowd) / sum(one["seconds"] for one in crowd)
    tiles_per_s = len(tiles) / sum(one["seconds"] for one in crowd)
    lines = [
        f"{found['prompt_tokens']:,} prompt tokens, {found['new_tokens']} new ones in two lanes, embedded model, "
        f"{machine['cpus']} processors ({machine['processor']}), load average {machine['load_average']:.1f} before the "
        f"run. Rounds in which the sides took turns: {len(crowd)}; medians, and ratios within a round.\n",
        "| who watches | tokens/s | of headless | bar | |",
        "| --- | --- | --- | --- | --- |",
        _side(rounds, "headless", None),
        _side(rounds, "one client", ONE_CLIENT),
        _side(rounds, "a crowd", CROWD),
        _side(rounds, "a browser", None),
        "",
        "| what | measured | bar | |",
        "| --- | --- | --- | --- |",
        f"| page server, from first step to last in a browser | {display:.2f} s of processor | <= {bar_s:.2f} s | "
        f"{_verdict(display <= bar_s)} |",
        f"| page server, from the click until the page has settled | {_middle(browser, 'click_to_end_cpu_s'):.2f} s of "
        "processor | | |",
        f"| age of a step when the browser has it, median | {1e3 * statistics.median(ages):.0f} ms | | |",
        f"| the same, 95th percentile of {len(ages)} | {1e3 * percentile(ages, 0.95):.0f} ms | <= "
        f"{1e3 * LATENCY_S:.0f} ms | {_verdict(percentile(ages, 0.95) <= LATENCY_S)} |",
        f"| crowd: script runs of {found['visits']} visits over websockets, without browsers | {reruns_per_s:.1f} a "
        f"second, {statistics.median(reruns):.2f} s each | | |",
        f"| crowd: exact map tiles | {tiles_per_s:.1f} a second, {1e3 * statistics.median(tiles):.0f} ms each | | |",
        f"| crowd: page server | {sum(one['page_cpu_s'] for one in crowd) / sum(one['seconds'] for one in crowd):.2f} "
        "processors | | |",
    ]
    return "\n".join(lines) + "\n"


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(-(-len(ordered) * int(1000 * share) // 1000) - 1, 0)]


def _middle(rounds: list[dict[str, Any]], name: str) -> float:
    return float(statistics.median(one[name] for one in rounds))


def _side(rounds: dict[str, list[dict[str, Any]]], name: str, bar: float | None) -> str:
    rate = _middle(rounds[name], "rate")
    ratio = statistics.median(
        one["rate"] / quiet["rate"] for one, quiet in zip(rounds[name], rounds["headless"], strict=True)
    )
    bound, verdict = ("", "") if bar is None else (f">= {bar}", _verdict(ratio >= bar))
    return f"| {name} | {rate:.2f} | {ratio:.3f} | {bound} | {verdict} |"


def _verdict(held: bool) -> str:
    return "held" if held else "MISSED"
