from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lighttransfer_core.command_line.sweeping import markdown as markdown_of_files
from lighttransfer_core.frontier.results import ExampleResult, Outcome, Sweep
from lighttransfer_core.frontier.spec import ExampleKey, SweepHeader, SweepSpec
from lighttransfer_core.frontier.summary import CHANCE, cells, difference, rankings, scored
from lighttransfer_core.frontier.tables import markdown, table_rows
from lighttransfer_core.types import Window
from tests.frontier.test_summary import CELL, CHOSEN, MODEL, WINDOW, many, result, tried

ROOT = Path(__file__).resolve().parents[2]


def sweep_of(*results: ExampleResult, tasks: tuple[str, ...] = ("a", "b")) -> Sweep:
    spec = SweepSpec(tasks=tasks, lengths=(700,), windows=(WINDOW,), shares=(0.5,), questions=("aware", "agnostic"))
    return Sweep(SweepHeader(spec, MODEL), results)


def with_random_orders(one: ExampleResult) -> ExampleResult:
    """The good ranking as one random order, the bad one as another."""
    orders = one.orders[WINDOW]
    return replace(one, orders={WINDOW: {**orders, "random_0": orders["good"], "random_1": orders["bad"]}})


def test_rows_are_of_every_cell_and_of_all_tasks_together() -> None:
    spec = SweepSpec(tasks=("a", "b"), lengths=(700,), windows=(WINDOW,), shares=(0.5,))
    sweep = Sweep(SweepHeader(spec, MODEL), (result(0, 1.0, 1.0, 0.0), result(0, 1.0, 0.0, 0.0, task="b")))
    assert [cell.task for cell in cells(sweep)] == ["a", "b", None]
    assert rankings(sweep.results) == ["good", "bad"]
    rows = {(row.task, row.ranking, row.share): row.value.mean for row in table_rows(sweep)}
    assert rows["a", "good", 0.5] == 1.0
    assert rows["b", "good", 0.5] == 0.0
    assert rows["all", "good", 0.5] == 0.5
    assert rows["all", "good", 1.0] == 0.0
    own = {(row.ranking, row.share): row.value.mean for row in table_rows(tried(range(10))) if row.task}
    assert own["chosen", 0.5] == 0.5
    assert ("chosen", 1.0) not in own


def test_rows_say_how_far_each_is_ahead_of_the_one_named() -> None:
    sweep = sweep_of(*many(), tasks=("a",))
    assert {row.lead for row in table_rows(sweep)} == {None}, "none was named"
    leads = {row.ranking: row.lead for row in table_rows(sweep, "bad") if (row.task, row.share) == ("a", 0.5)}
    assert leads == {"good": difference(many(), CELL, "good", ["bad"], 2, scored), "bad": None}
    drawn = replace(sweep, results=tuple(with_random_orders(one) for one in sweep.results))
    over_chance = {row.ranking: row.lead for row in table_rows(drawn, CHANCE) if (row.task, row.share) == ("a", 0.5)}
    assert over_chance["good"] == difference(many(), CELL, "good", ["good", "bad"], 2, scored), "of the mean of both"
    assert over_chance["random_0"] is None, "chance is not ahead of itself"
    assert {row.lead for row in table_rows(sweep, CHANCE)} == {None}, "there are no random orders"


def test_there_is_no_lead_at_a_number_of_layers_that_was_not_tried() -> None:
    """The set of one layer coincides with another ranking's on some prompts, and there only."""
    alone = replace(CHOSEN, lazy=1)
    spec = SweepSpec(tasks=("a",), lengths=(700,), windows=(WINDOW,), shares=(0.5, 1.0), orders=(alone,))
    one = result(0, 1.0, 1.0, 0.0)
    also = replace(
        one,
        orders={WINDOW: {"good": (1, 0, 2, 3), alone.name: alone.order}},
        outcomes={WINDOW: {(1,): Outcome(1.0), (0, 1): Outcome(1.0), (0, 1, 2, 3): Outcome(0.0)}},
    )
    rows = table_rows(Sweep(SweepHeader(spec, MODEL), (also,)), "good")
    found = {(row.ranking, row.share): row.lead for row in rows if row.task == "a"}
    assert found == {("good", 0.5): None, ("good", 1.0): None, (alone.name, 0.25): None}, "and no row twice"
    assert len(rows) == 6, "of the task, and of all"


def test_an_order_for_the_second_window_alone_has_its_row() -> None:
    other = Window(4, 61)
    one = result(0, 1.0, 1.0, 0.0)
    both = replace(
        one,
        orders={WINDOW: {"good": (0, 1, 2, 3)}, other: {"calibrated": (0, 1, 2, 3)}},
        outcomes=dict.fromkeys((WINDOW, other), one.outcomes[WINDOW]),
    )
    spec = SweepSpec(tasks=("a",), lengths=(700,), windows=(WINDOW, other), shares=(0.5,))
    text = markdown(Sweep(SweepHeader(spec, MODEL), (both,)))
    assert "| `calibrated` |  | 1.00 [1.00, 1.00], 1.00 |" in text
    unranked = replace(both, orders={WINDOW: {}, other: {"calibrated": (0, 1, 2, 3)}}, outcomes={WINDOW: {}, other: {}})
    assert "all layers streaming were not tried." in markdown(Sweep(SweepHeader(spec, MODEL), (unranked,)))


def test_markdown_has_what_is_kept_of_all_tasks_and_of_the_weakest() -> None:
    pairs = [(1.0, 0.0, "a"), (0.0, 0.0, "b"), (1.0, 1.0, "b"), (1.0, 0.0, "a")]
    results = [result(seed, 1.0, good, bad, task) for seed, (good, bad, task) in enumerate(pairs)]
    of_some = replace(results[0], orders={WINDOW: {**results[0].orders[WINDOW], "costly": (0, 1, 2, 3)}})
    said, blank, head, _, *rows = markdown(
        sweep_of(of_some, *(with_random_orders(one) for one in results[1:]))
    ).splitlines()
    assert said == (
        "**700 tokens, the question in the prompt**: 4 prompts. The full model has 1.00; all layers streaming keep "
        "0.00 (4 + 60)."
    )
    assert not blank
    assert head == "| ranking | 4 + 60, 50% |"
    cell_of = dict(row.strip("| ").split(" | ") for row in rows)
    assert list(cell_of) == ["`good`", "`bad`", "`costly`, 1 prompt", "random (2)"]
    assert cell_of["`good`"].startswith("0.75 [")
    assert cell_of["`good`"].endswith("], 0.50"), "task b"
    assert cell_of["`bad`"].endswith("], 0.00"), "task a"
    assert cell_of["`costly`, 1 prompt"] == "1.00 [1.00, 1.00], 1.00"
    assert cell_of["random (2)"] == f"{(2 / 3 + 1 / 3) / 2:.2f}"


def test_a_share_that_fewer_prompts_were_asked_at_says_so() -> None:
    """As where sweeps with other shares are taken together."""
    asked, not_asked = (with_random_orders(result(seed, 1.0, 1.0, 0.0)) for seed in (0, 1))
    not_asked = replace(not_asked, outcomes={WINDOW: {(0, 1, 2, 3): Outcome(0.0)}})
    text = markdown(sweep_of(asked, not_asked))
    assert "| `good` | 1.00 [1.00, 1.00], 1.00, 1 prompt |" in text
    assert "| random (2) | 0.50 |" in text
    nowhere = markdown(sweep_of(replace(asked, outcomes=not_asked.outcomes), not_asked))
    assert "| `good` |  |" in nowhere
    assert "| random (2) | – |" in nowhere


def test_random_orders_count_alike_for_every_prompt() -> None:
    one, other = (with_random_orders(result(seed, 1.0, 1.0, 0.0)) for seed in (0, 1))
    fewer = {name: order for name, order in other.orders[WINDOW].items() if name != "random_1"}
    text = markdown(sweep_of(one, replace(other, orders={WINDOW: fewer})))
    assert "| random (1 to 2) | 0.75 |" in text


def test_markdown_is_of_what_was_asked() -> None:
    later = replace(result(0, 1.0, 1.0, 0.0), key=ExampleKey("a", 700, 0, "agnostic"))
    (said,) = (line for line in markdown(sweep_of(later)).splitlines() if line.startswith("**"))
    assert "the question asked of the cut cache" in said
    assert markdown(sweep_of()) == ""
    assert markdown(tried(range(10))) == "", "one set of layers is no ranking"


def test_a_share_of_nothing_is_no_number() -> None:
    """Only task a can be done at all."""
    nothing = with_random_orders(result(0, 0.0, 0.0, 0.0, task="b"))
    text = markdown(sweep_of(nothing))
    assert "1 prompt. The full model has 0.00, so there is nothing that could be kept.\n" in text
    assert "| `good` | – |" in text
    assert "| random (2) | – |" in text
    assert {row.ratio for row in table_rows(sweep_of(nothing))} == {None}
    beside = sweep_of(nothing, with_random_orders(result(0, 1.0, 1.0, 0.0)))
    ratios = {row.task: row.ratio for row in table_rows(beside) if (row.ranking, row.share) == ("good", 0.5)}
    assert ratios["b"] is None
    assert {ratios[task].mean for task in ("a", "all")} == {1.0}
    assert "| `good` | 1.00 [1.00, 1.00], 1.00 |" in markdown(beside)


def test_texts_that_are_read_are_told_in_nats_and_never_averaged_with_scores() -> None:
    read = replace(
        result(0, 1.0, 1.0, 0.0, task="b"),
        full=Outcome(None, 2.0, 0.0),
        outcomes={WINDOW: {layers: Outcome(None, 2.5, 0.1) for layers in ((0, 1), (2, 3), (0, 1, 2, 3))}},
    )
    tables = markdown(sweep_of(result(0, 1.0, 1.0, 0.0), read)).split("\n\n**")
    assert ", a**" in tables[0]
    assert ", b**: 1 prompt. Minus the NLL, in nats per token: the full model -2.00" in tables[1]
    assert "all layers streaming -2.50 (4 + 60)." in tables[1]
    assert "| `good` | 1.00 [1.00, 1.00] |" in tables[0]
    assert "| `good` | -2.50 [-2.50, -2.50] |" in tables[1]


def test_the_document_ends_with_the_tables_of_the_results_that_are_shipped() -> None:
    shipped = markdown_of_files([ROOT / "assets" / "recorded" / "sweeps"], as_one=True)
    document = (ROOT / "docs" / "rankings.md").read_text(encoding="utf-8")
    assert document.endswith(f"\n{shipped}\n"), (
        "`lighttransfer_core frontier assets/recorded/sweeps --together --markdown`"
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    shown = [line for line in readme if line.startswith("| `") and "], " in line]
    assert shown
    assert set(shown) <= set(shipped.splitlines()), "README shows some of them"
