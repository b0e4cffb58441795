from __future__ import annotations

import numpy as np

from lighttransfer_core.maps.codes import MASKED, decode, encode, encode_signed


def test_a_code_is_the_logarithm_within_its_step() -> None:
    values = np.exp2(np.linspace(-24, 0, 5000)).astype(np.float32)
    codes = encode(values)
    assert (codes.min(), codes.max()) == (1, 254)
    assert np.abs(np.log2(decode(codes)) - np.log2(values)).max() <= 24 / 253 / 2 + 1e-5
    assert (np.diff(codes.astype(int)) >= 0).all()


def test_the_ends_of_the_range() -> None:
    values = np.array([0.0, 2.0**-25, 2.0**-24, 0.5, 1.0, 1.0001, np.nan], dtype=np.float32)
    assert encode(values).tolist() == [0, 0, 1, 243, 254, 254, MASKED]


def test_differences_are_symmetric_about_none() -> None:
    values = np.array([-1.0, -0.5, -(2.0**-24), -(2.0**-30), 0.0, 2.0**-30, 2.0**-24, 0.5, 1.0, np.nan], np.float32)
    codes = encode_signed(values).astype(int)
    assert codes.tolist() == [0, 5, 126, 127, 127, 127, 128, 249, 254, MASKED]
