"""Attention as one byte a cell, coloured in the browser: the logarithm, since a linear byte loses most of the mass.

A probability p becomes `254 + log2(p) * 253 / 24`, from 1 (2 to the minus 24) to 254 (1); 0 is anything smaller, and
255 a cell that no query of it sees. A difference d becomes `127 +- (127 + log2(|d|) * 126 / 24)`: 127 is no difference.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MASKED = 255
RANGE_BITS = 24
Codes = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]


def encode(values: Values) -> Codes:
    """Codes of probabilities; nan is masked."""
    return _finished(_scaled(values, 254, 253), values)


def encode_signed(values: Values) -> Codes:
    """Codes of differences; nan is masked."""
    return _finished(127 + np.sign(values) * _scaled(np.abs(values), 127, 126), values)


def decode(codes: Codes) -> Values:
    """The probability in the middle of each code; nan where masked."""
    values = np.exp2((codes.astype(np.float32) - 254) * (RANGE_BITS / 253))
    return np.where(codes == MASKED, np.float32(np.nan), np.where(codes == 0, np.float32(0), values))


def _scaled(values: Values, top: int, steps: int) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log2(values)
    return np.where(logs < -RANGE_BITS, np.float32(0), np.rint(top + logs * (steps / RANGE_BITS)))


def _finished(codes: Values, values: Values) -> Codes:
    return np.where(np.isnan(values), MASKED, np.nan_to_num(codes).clip(0, MASKED - 1)).astype(np.uint8)
