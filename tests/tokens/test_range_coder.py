import numpy as np
import pytest

from laser_jax.tokens import RangeDecoder, RangeEncoder


def roundtrip(symbols, distributions):
    """Codes symbols, checks that they come back; returns the bytes and the entropy in bits."""
    encoder, bits = RangeEncoder(), 0.0
    for symbol, weights in zip(symbols, distributions, strict=True):
        encoder.encode(sum(weights[:symbol]), weights[symbol], sum(weights))
        bits -= np.log2(weights[symbol] / sum(weights))
    data = encoder.finish()
    decoder = RangeDecoder(data)
    for symbol, weights in zip(symbols, distributions, strict=True):
        target, found = decoder.target(sum(weights)), 0
        while sum(weights[: found + 1]) <= target:
            found += 1
        decoder.consume(sum(weights[:found]), weights[found])
        assert found == symbol
    assert decoder.exhausted()
    return data, bits


@pytest.mark.parametrize("scale", [1, 2**20, 2**40])
def test_symbols_come_back_in_the_bits_of_their_weights(scale):
    rng = np.random.default_rng(scale % 97)
    distributions = [[1 + int(n) * scale for n in rng.integers(1, 8, 4)] for _ in range(2000)]
    symbols = [
        int(rng.choice(4, p=np.array(weights, float) / sum(weights))) for weights in distributions
    ]
    data, bits = roundtrip(symbols, distributions)
    assert bits / 8 - 1 < len(data) < bits / 8 * 1.0005 + 2


def test_carries_run_through_many_bytes():
    # The last symbols of a nearly certain one leave the interval's lower end at 0xffff...
    certain = [2**40 - 1, 1]
    for end in range(40):
        symbols = [0] * end + [1] * 3 + [0] * end + [1]
        roundtrip(symbols, [certain] * len(symbols))
        roundtrip([1 - s for s in symbols], [certain[::-1]] * len(symbols))


def test_certain_symbols_take_no_bytes():
    assert RangeEncoder().finish() == b""
    data, _ = roundtrip([0] * 10_000, [[2**40, 1]] * 10_000)
    assert len(data) <= 1


def test_integers_of_any_size_come_back():
    integers = [0, 1, 2, 3, 254, 255, 2**20, 2**31 - 2]
    encoder = RangeEncoder()
    for integer in integers:
        encoder.encode_integer(integer)
    data = encoder.finish()
    decoder = RangeDecoder(data)
    assert [decoder.decode_integer() for _ in integers] == integers
    bits = sum(2 * int(np.log2(n + 1)) + 1 for n in integers)
    assert len(data) <= bits / 8 + 2
    with pytest.raises(ValueError, match=r"must be in \[0, 2\^31 - 1\), got 2147483647"):
        RangeEncoder().encode_integer(2**31 - 1)
    encoder = RangeEncoder()
    for _ in range(40):
        encoder.encode(1, 1, 2)
    with pytest.raises(ValueError, match="more than 31 bits"):
        RangeDecoder(encoder.finish()).decode_integer()
