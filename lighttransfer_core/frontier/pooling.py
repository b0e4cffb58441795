"""Sweeps of different prompts and rankings as one: what is known of a ranking over all prompts that it was tried on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from lighttransfer_core.frontier.results import Sweep
from lighttransfer_core.frontier.spec import SweepSpec
from lighttransfer_core.types import Window

Item = TypeVar("Item")


def together(sweeps: Iterable[Sweep]) -> list[Sweep]:
    """Those that ask the same tasks of the same model in the same way, each with prompts of its own, made one; each of
    the others alone.

    A ranking's numbers are then over all prompts that it ranked; how far it is ahead of another is over those that both
    ranked.
    """
    groups: list[list[Sweep]] = []
    for sweep in sweeps:
        group = next((one for one in groups if all(_fit(sweep, other) for other in one)), None)
        if group is None:
            groups.append([sweep])
        else:
            group.append(sweep)
    return [group[0] if len(group) == 1 else _pooled(group) for group in groups]


def part_of(sweep: Sweep) -> str:
    """What a sweep is called among the parts of several: which it is, and how much of it there is."""
    return f"{sweep.header.identity} {len(sweep.results)}"


def _fit(one: Sweep, other: Sweep) -> bool:
    """Whether equal names mean equal things in both, and no prompt counts twice."""
    if _way(one) != _way(other) or not one.done.isdisjoint(other.done):
        return False
    # a set of layers is tried at one share only, on the prompts of another sweep
    if any(order.lazy is not None for sweep in (one, other) for order in sweep.header.spec.orders):
        return False
    known = _named(one)
    return all(known.get(name, meant) == meant for name, meant in _named(other).items())


def _named(sweep: Sweep) -> dict[tuple[str, Window], tuple[int, ...] | None]:
    """What each ranking is at each window: an order, or a metric."""
    spec = sweep.header.spec
    metrics = {(name, window): None for name in (*spec.rankings, *spec.trials) for window in spec.windows}
    return metrics | {(order.name, order.window): order.order for order in spec.orders}


def _way(sweep: Sweep) -> tuple[object, ...]:
    """What every prompt and answer depends on, its seed and length aside."""
    model, spec = sweep.header.model, sweep.header.spec
    return (
        model.identity,
        model.dtype,
        model.notes,
        frozenset(spec.tasks),
        frozenset(spec.windows),
        spec.rendering,
        spec.last,
        spec.max_new_tokens,
    )


def _pooled(sweeps: Sequence[Sweep]) -> Sweep:
    results = tuple(result for sweep in sweeps for result in sweep.results)
    header, specs = sweeps[0].header, [sweep.header.spec for sweep in sweeps]

    def all_of(some: Callable[[SweepSpec], Iterable[Item]]) -> tuple[Item, ...]:
        return tuple(dict.fromkeys(item for spec in specs for item in some(spec)))

    orders = {(order.name, order.window): order for spec in specs for order in spec.orders}
    spec = replace(
        specs[0],
        lengths=tuple(sorted(all_of(lambda one: one.lengths))),
        shares=tuple(sorted(all_of(lambda one: one.shares))),
        rankings=all_of(lambda one: one.rankings),
        trials=all_of(lambda one: one.trials),
        orders=tuple(orders.values()),
        questions=all_of(lambda one: one.questions),
        examples=max(1, len({result.key.seed for result in results})),
        first_seed=min(one.first_seed for one in specs),
    )
    return Sweep(replace(header, spec=spec), results, tuple(map(part_of, sweeps)))
