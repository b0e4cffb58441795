"""The Scale page's section on what `make bench` measured on the backend's machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import streamlit as st

from lighttransfer_core.cost.bench_rows import Row
from lighttransfer_core.cost.benchmark import Benchmark, Part
from lighttransfer_core.errors import BackendUnavailableError, LightTransferError
from lighttransfer_core.service.answers import BenchmarkReport
from pages.parts import backend, errors
from pages.parts.errors import plain
from pages.parts.picking import pick
from viz import benchmark
from viz.components.chart import chart
from viz.units import bytes_text, count_text, seconds_text

_DECODE: Final = "decode"


def section() -> None:
    """The last results, or what to do to have some."""
    found = backend.ask(lambda client: client.benchmark())
    if isinstance(found, BackendUnavailableError):
        st.markdown("The results of the benchmark are read once the backend answers.")
    elif isinstance(found, LightTransferError):
        errors.panel(found, "Run make bench again on the backend’s machine, or move the file away.")
    elif found.benchmark is None or not any(part.rows for part in found.benchmark.parts):
        st.info(
            "The benchmark has no results yet. On the backend’s machine, with nothing else running, `make bench` "
            "measures prefills and decode steps of this library, of transformers’ caches and of kvpress, in about half "
            'an hour on two cores; `make bench BENCH="--only decode"` measures one part. Its results appear here.',
            icon=":material/speed:",
        )
    else:
        _results(found, found.benchmark)


def _results(found: BenchmarkReport, results: Benchmark) -> None:
    decode = results.part(_DECODE)
    elsewhere = [part for part in results.parts if part.machine.processor != found.processor]
    if elsewhere:
        st.warning(
            plain(
                f"Measured on another machine ({elsewhere[0].machine.processor}); this backend runs on "
                f"{found.processor}. Run make bench here."
            ),
            icon=":material/compare_arrows:",
        )
    if any(part.quick for part in results.parts):
        st.warning("From a quick run, whose numbers say nothing about long prompts.", icon=":material/bolt:")
    if decode is not None and decode.rows:
        st.markdown(
            plain(
                f"{decode.about} Medians with quartiles; sides took turns in one run, and ratios are taken turn by "
                "turn: they need not be those of the medians, and have quartiles where there were several turns."
            )
        )
        _decode(decode)
    _held(results)
    _others(results)
    with st.expander("All parts, and how costs grow", icon=":material/table_rows:"):
        for part in results.parts:
            _part(part)


def _decode(part: Part) -> None:
    """The chart and the table of one precision and batch, which the address holds."""
    boxes = st.columns([1, 1, 3])
    dtype = pick(boxes[0], "Precision", "bench_dtype", list(dict.fromkeys(row.dtype for row in part.rows)))
    batches = list(dict.fromkeys(str(row.batch) for row in part.rows if row.dtype == dtype))
    batch = int(pick(boxes[1], "Sequences at once", "bench_batch", batches))
    rows = [row for row in part.rows if (row.dtype, row.batch) == (dtype, batch)]
    measured = [row for row in rows if row.seconds is not None]
    if measured:
        chart(benchmark.steps_over_context(measured), key="chart_bench_decode")
        _step_table(measured)
    if missing := benchmark.missing_texts(rows):
        st.caption(plain("Not measured: " + "; ".join(missing) + "."))
    st.caption(plain(benchmark.made_text(part)))


def _step_table(rows: Sequence[Row]) -> None:
    """Each side's step at each context, and more of it at the longest."""
    contexts = sorted({row.tokens for row in rows})
    sides = benchmark.sides_of(rows)
    at = {(row.side, row.tokens): row for row in rows}

    def column(tokens: int, cell: Callable[[Row], str]) -> list[str]:
        found = [at.get((side, tokens)) for side in sides]
        return ["–" if row is None else plain(cell(row)) for row in found]

    longest = contexts[-1]
    st.table(
        {
            "Side": [plain(side) for side in sides],
            **{f"{tokens:,} tokens": column(tokens, _median) for tokens in contexts},
            f"Compared, at {longest:,}": column(longest, benchmark.ratio_text),
            "KV cache": column(longest, lambda row: "–" if row.kept_bytes is None else bytes_text(row.kept_bytes)),
            "Of the bandwidth limit": column(longest, _share),
        }
    )


def _median(row: Row) -> str:
    return "–" if row.seconds is None else seconds_text(row.seconds.median)


def _share(row: Row) -> str:
    """How near a step comes to reading its bytes at the memory's bandwidth."""
    return "–" if row.limit_s is None or row.seconds is None else f"{row.limit_s / row.seconds.median:.0%}"


def _held(results: Benchmark) -> None:
    """What we hold ourselves to."""
    held = list(results.held())
    if not held:
        return
    st.markdown("**What we hold ourselves to**")
    st.table(
        {
            "Side": [plain(f"{row.side}, {row.dtype}, batch {row.batch}") for _, row, _ in held],
            "Tokens": [f"{row.tokens:,}" for _, row, _ in held],
            "Measured": [plain(benchmark.found_text(bar, row)) for _, row, bar in held],
            "Bar": [plain(benchmark.bar_text(bar)) for _, _, bar in held],
            "Verdict": [benchmark.met_text(bar, row) for _, row, bar in held],
        }
    )


def _others(results: Benchmark) -> None:
    """Whether other people's code was faster anywhere."""
    beside = [row for part in results.parts for row in part.rows if row.peer and row.ratio is not None]
    if not beside:
        return
    ahead = benchmark.ahead_texts(results)
    st.markdown(
        f"**Beside other libraries:** of {count_text(len(beside), 'measurement')} of theirs, {len(ahead):,} are faster "
        "than ours beyond the quartiles of their ratio."
    )
    if ahead:
        with st.expander("Where others are faster", icon=":material/trending_up:"):
            st.markdown("\n".join(f"- {plain(line)}" for line in ahead))


def _part(part: Part) -> None:
    """All rows of a part, and the lines through them."""
    st.markdown(f"**{plain(part.name)}** {plain(part.about)} {plain(part.model[:1].upper() + part.model[1:])}.")
    measured = [row for row in part.rows if row.seconds is not None]
    if measured:
        st.dataframe(benchmark.columns(measured), hide_index=True, width="stretch")
    told = benchmark.missing_texts(part.rows) + [f"{one.what}: {benchmark.growth_text(one)}" for one in part.growths]
    if told:
        st.markdown("\n".join(f"- {plain(line)}" for line in told))
    st.caption(plain(benchmark.made_text(part)))
