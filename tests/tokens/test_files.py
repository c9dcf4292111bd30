import numpy as np
import pytest

from laser_jax.tokens import (
    RangeDecoder,
    Run,
    Tokens,
    check_tokens,
    container,
    one_size,
    pack_tokens,
    read_container,
    unpack_tokens,
    write_container,
)
from laser_jax.tokens.container import fingerprint_of
from laser_jax.tokens.files import check_pictures
from tests.tokens.test_context_model import SET, integer_model
from tests.tokens.test_layout import random_tokens

UNIT, FINGERPRINT = (8, 4), bytes(range(8))


def written():
    """A model, groups of pictures of two sizes, and their file."""
    rng, model = np.random.default_rng(0), integer_model(SET)
    groups = [
        (random_tokens(rng, SET, (2, 3, 5)), (20, 17)),
        (random_tokens(rng, SET, (1, 1, 2)), (8, 8)),
    ]
    return model, groups, pack_tokens(groups, model, unit=UNIT, fingerprint=FINGERPRINT)


def read(data, model, fingerprint=FINGERPRINT):
    return unpack_tokens(data, model, unit=UNIT, fingerprint=fingerprint)


def test_pictures_of_several_sizes_come_back_from_one_file():
    model, groups, data = written()
    found = read(data, model)
    for (tokens, size), (mine, own) in zip(groups, found, strict=True):
        assert size == own
        for a, b in zip(tokens, mine, strict=True):
            np.testing.assert_array_equal(a, b)
    assert [size for _, size in one_size(found)] == [(20, 17), (20, 17), (8, 8)]
    bits = sum(model.bits(tokens).sum() for tokens, _ in groups)
    assert len(data) <= 1.001 * bits / 8 + 40


def test_wrong_files_raise_with_the_reason():
    model, groups, data = written()
    other = integer_model(SET, hidden=7)
    with pytest.raises(ValueError, match="not a compressed picture of laser_jax"):
        read(b"\x89PNG\r\n" + data, model)
    with pytest.raises(ValueError, match="not a compressed picture of laser_jax"):
        read(b"", model)
    with pytest.raises(ValueError, match="truncated: it has only 19 bytes"):
        read(data[:19], model)
    with pytest.raises(ValueError, match="damaged or truncated"):
        read(data[:-1], model)
    with pytest.raises(ValueError, match="damaged or truncated"):
        read(data + b"\0", model)
    with pytest.raises(ValueError, match="version 2, this code reads 1; update laser_jax"):
        read(data[:4] + b"\2" + data[5:], model)
    for wrong in ((data, other), (data, model, bytes(8))):
        with pytest.raises(ValueError, match="written by another model"):
            read(*wrong)
    with pytest.raises(ValueError, match=r"have tokens of shape \(2, 3, 6\), got \(2, 3, 5\)"):
        pack_tokens([(groups[0][0], (24, 21))], model, unit=UNIT, fingerprint=FINGERPRINT)


@pytest.mark.parametrize("runs, reason", [
    ([(2**20, 64, 64)], "a file holds sides up to"),
    ([(1, 8, 8), (1, 2**16 + 1, 1)], "a file holds sides up to"),
    ([(1, 8, 0)], "pictures are not empty"),
    ([], "at least one picture"),
    ([(1, 8, 2**40)], "its header does not end"),
    ([(1, 8)], "its header does not end"),
    ([(2**26, 1, 1)], "holds up to 4194304 positions of 8x4 pixels, got 67108864"),
])  # fmt: skip
def test_headers_made_by_hand_raise(runs, reason):
    model = integer_model(SET)
    joined = bytes(x ^ y for x, y in zip(FINGERPRINT, model.fingerprint, strict=True))
    numbers = [len(runs), *(number for run in runs for number in run)]
    body = b"LASR\1" + joined + b"".join(map(container._number, numbers))
    with pytest.raises(ValueError, match=reason):
        read(body + container._checksum(body), model)


def test_files_hold_as_much_when_written_as_when_read():
    model, shape = integer_model(SET), (2**23, 1, 1)
    many = Tokens(*(np.broadcast_to(0, (*shape, *end)) for end in ((), (5,), (5,))))
    with pytest.raises(ValueError, match="holds up to 4194304 positions"):
        pack_tokens([(many, (1, 1))], model, unit=UNIT, fingerprint=FINGERPRINT)
    check_pictures([Run(1, 2**13 + 1, 2**13 - 1)], SET, UNIT)  # one picture of nearly 2^26 pixels
    with pytest.raises(ValueError, match="holds up to 24403223 positions of 1x1"):  # 1 GiB
        check_pictures([Run(1, 2**13, 2**13)], SET, (1, 1))


def test_headers_beyond_the_limits_raise():
    good = [Run(3, 40, 70_000 // 1000)]
    assert read_container(write_container(good, b"xyz", bytes(8)), bytes(8)) == (good, b"xyz")
    for runs in ([], [Run(0, 1, 1)], [Run(1, 2**17, 1)], [Run(2**20, 64, 64)]):
        with pytest.raises(ValueError, match="a file holds"):
            write_container(runs, b"", bytes(8))


def test_fingerprints_tell_arrays_apart():
    x = np.arange(6, dtype=np.float32)
    parts = (x,), (x.reshape(2, 3),), (x.astype(np.int32),), (x + 1,), (x[:3], x[3:]), (b"ab", x)
    assert len({fingerprint_of(*each) for each in parts}) == len(parts)
    assert fingerprint_of(x) == fingerprint_of(x.copy())


def mutations(data, rng, number):
    """Yields damaged copies of data: bits flipped, bytes cut out, put in or cut off."""
    for _ in range(number):
        changed, kind = bytearray(data), rng.integers(4)
        place = int(rng.integers(len(data)))
        if kind == 0:
            for each in rng.integers(len(data), size=rng.integers(1, 5)):
                changed[each] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del changed[place : place + int(rng.integers(1, 9))]
        elif kind == 2:
            changed[place:place] = rng.bytes(int(rng.integers(1, 9)))
        else:
            del changed[place:]
        if bytes(changed) != data:
            yield bytes(changed)


def fuzz(number):
    """Reads damaged files, and damaged payloads past the checksum; returns how many of each."""
    rng, (model, groups, data) = np.random.default_rng(1), written()
    files = payloads = 0
    for damaged in mutations(data, rng, number):
        with pytest.raises(ValueError):
            read(damaged, model)
        files += 1
    joined = bytes(x ^ y for x, y in zip(FINGERPRINT, model.fingerprint, strict=True))
    payload = read_container(data, joined)[1]
    for damaged in mutations(payload, rng, max(1, number // 10)):
        try:
            tokens = model.decode(RangeDecoder(damaged), groups[0][0].counts.shape)
        except ValueError as error:
            assert "damaged" in str(error)
        else:
            check_tokens(tokens, SET)
            assert isinstance(tokens, Tokens)
        payloads += 1
    return files, payloads


def test_damaged_files_raise_and_damaged_payloads_give_valid_tokens_or_raise():
    files, payloads = fuzz(200)
    assert files > 150 and payloads >= 15


if __name__ == "__main__":
    print("files and payloads:", fuzz(10_000))
