"""Results of a benchmark that was never run, with every kind of row, for what reads and shows them."""

from __future__ import annotations

from lighttransfer_core.cost.bench_rows import Bar, Growth, Row, Spread
from lighttransfer_core.cost.benchmark import Benchmark, Machine, Part

MACHINE = Machine("cpu", "A processor", 2, 2e10, 0.25, "2.13.0", "5.23.0", "3.11.9", "0.1.0")
DYNAMIC, QUANTO = "transformers, DynamicCache", "transformers, QuantizedCache (quanto, 4 bits)"
KVPRESS = "kvpress, SimLayerKVPress"
FULL, HALF = "ours, all layers full", "ours, half of the layers lazy"
WEIGHTS = 540_000_000
_KV = 46_080


def made_benchmark(processor: str = MACHINE.processor) -> Benchmark:
    """Decoding in two precisions and batches, prefills, and what a page waits for."""
    machine = Machine.from_dict({**MACHINE.to_dict(), "processor": processor})
    sizes = [(dtype, batch) for dtype in ("float32", "bfloat16") for batch in (1, 8)]
    decode = tuple(
        row for dtype, batch in sizes for tokens in (1024, 4096, 8128) for row in steps(dtype, tokens, batch)
    )
    kept = ([512.0, 1024.0, 4096.0], [0.05, 0.052, 0.064])
    grown = Growth.fitted("decode step, float32, batch 1", "token that a layer keeps of a sequence", *kept)
    return Benchmark(
        (
            _part("prefill", "One prompt.", machine, prefills()),
            _part("decode", "One token for every sequence.", machine, decode, (grown,)),
        )
    )


def steps(dtype: str, tokens: int, batch: int) -> list[Row]:
    """A cell: a peer that is slower, one that is faster, one that is missing, and two sides of ours."""
    kv = _KV * tokens * batch
    own = 0.04 + kv / 1e10
    bar = (Bar("ratio", at_least=1.6),) if (tokens, batch) == (8128, 1) else ()
    return [
        _step(
            DYNAMIC, dtype, tokens, batch, 2 * own, kv, ratio=2.0, ratio_of="times as long as ours, all full", peer=True
        ),
        Row(QUANTO, dtype, tokens, batch, peer=True, note="its package is not installed (quanto)"),
        _step(
            KVPRESS,
            dtype,
            tokens,
            batch,
            own,
            kv // 2,
            ratio=0.9,
            ratio_of="times as long as ours, half lazy",
            peer=True,
        ),
        _step(FULL, dtype, tokens, batch, own, kv, ratio=2.0, ratio_of="times DynamicCache’s speed", bars=bar),
        _step(
            HALF, dtype, tokens, batch, 0.8 * own, kv // 2, ratio=1.25, ratio_of="times the speed of all layers full"
        ),
    ]


def prefills() -> tuple[Row, ...]:
    """A record that keeps to one of its bars and misses the other."""
    bars = (Bar("ratio", at_most=1.10), Bar("extra_bytes", at_most=4 * 8128**2))
    kept = {"kept_bytes": 900_000_000, "extra_bytes": 80_000_000}
    spread = Spread(60.0, 58.0, 63.0, 2)
    return (
        Row(DYNAMIC, "float32", 8128, seconds=Spread(50.0, 49.0, 51.0, 2), peer=True, kept_bytes=375_000_000),
        Row(
            "ours, recorded",
            "float32",
            8128,
            seconds=spread,
            ratio=Spread(1.2, 1.18, 1.22, 2),
            ratio_of="times DynamicCache’s time",
            bars=bars,
            **kept,
        ),
    )


def _step(
    side: str,
    dtype: str,
    tokens: int,
    batch: int,
    seconds: float,
    kv_bytes: int,
    *,
    ratio: float,
    ratio_of: str,
    peer: bool = False,
    bars: tuple[Bar, ...] = (),
) -> Row:
    read = WEIGHTS + kv_bytes
    return Row(
        side,
        dtype,
        tokens,
        batch,
        seconds=Spread(seconds, 0.95 * seconds, 1.1 * seconds, 24),
        ratio=Spread(ratio, 0.98 * ratio, 1.02 * ratio, 6),
        ratio_of=ratio_of,
        peer=peer,
        bars=bars,
        kept_bytes=kv_bytes,
        kept_tokens=kv_bytes / (_KV * batch),
        read_bytes=read,
        limit_s=read / MACHINE.bandwidth_bytes_per_s,
    )


def _part(name: str, about: str, machine: Machine, rows: tuple[Row, ...], growths: tuple[Growth, ...] = ()) -> Part:
    return Part(name, about, "the embedded model", "2026-11-25T12:00:00+00:00", 754.0, False, machine, rows, growths)
