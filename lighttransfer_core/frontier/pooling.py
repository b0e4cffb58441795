"""Sweeps of different prompts and rankings as one: what is known of a ranking over all prompts that it was tried on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from lighttransfer_core.frontier.results import ExampleResult, Sweep
from lighttransfer_core.frontier.spec import ExampleKey, SweepSpec

Item = TypeVar("Item")


def together(sweeps: Iterable[Sweep]) -> list[Sweep]:
    """Those that ask the same tasks of the same model in the same way made one; each of the others alone.

    A ranking's numbers are then over all prompts that it ranked, and two rankings are held against each other on those
    that both ranked.
    """
    groups: list[list[Sweep]] = []
    for sweep in sweeps:
        group = next((one for one in groups if all(_fit(sweep, other) for other in one)), None)
        if group is None:
            groups.append([sweep])
        else:
            group.append(sweep)
    return [group[0] if len(group) == 1 else _pooled(group) for group in groups]


def _fit(one: Sweep, other: Sweep) -> bool:
    """Whether equal names mean equal things in both."""
    if _way(one) != _way(other):
        return False
    orders = [{(made.name, made.window): made.order for made in sweep.header.spec.orders} for sweep in (one, other)]
    return all(orders[1].get(named, order) == order for named, order in orders[0].items())


def _way(sweep: Sweep) -> tuple[object, ...]:
    """What every prompt and answer depends on, its seed and length aside."""
    model, spec = sweep.header.model, sweep.header.spec
    return (
        model.identity,
        model.dtype,
        model.notes,
        frozenset(spec.tasks),
        spec.rendering,
        spec.last,
        spec.max_new_tokens,
    )


def _pooled(sweeps: Sequence[Sweep]) -> Sweep:
    by_key: dict[ExampleKey, ExampleResult] = {}
    for sweep in sweeps:
        for result in sweep.results:
            known = by_key.get(result.key)
            by_key[result.key] = result if known is None else _joined(known, result)
    header, specs = sweeps[0].header, [sweep.header.spec for sweep in sweeps]

    def all_of(some: Callable[[SweepSpec], Iterable[Item]]) -> tuple[Item, ...]:
        return tuple(dict.fromkeys(item for spec in specs for item in some(spec)))

    orders = {(order.name, order.window): order for spec in specs for order in spec.orders}
    spec = replace(
        specs[0],
        lengths=tuple(sorted(all_of(lambda one: one.lengths))),
        windows=all_of(lambda one: one.windows),
        shares=tuple(sorted(all_of(lambda one: one.shares))),
        rankings=all_of(lambda one: one.rankings),
        trials=all_of(lambda one: one.trials),
        orders=tuple(orders.values()),
        questions=all_of(lambda one: one.questions),
        examples=max(1, len({key.seed for key in by_key})),
        first_seed=min(one.first_seed for one in specs),
    )
    return Sweep(replace(header, spec=spec), tuple(by_key.values()), sum(sweep.parts for sweep in sweeps))


def _joined(one: ExampleResult, other: ExampleResult) -> ExampleResult:
    """The same prompt under the plans of both."""
    windows = dict.fromkeys((*one.orders, *other.orders))
    return replace(
        one,
        orders={window: {**other.orders.get(window, {}), **one.orders.get(window, {})} for window in windows},
        outcomes={window: {**other.outcomes.get(window, {}), **one.outcomes.get(window, {})} for window in windows},
    )
