"""The file format of compressed pictures.

    magic "LASR", 1 byte version, 8 bytes fingerprint of the model,
    runs of pictures of equal size: their number, then for each run how many, height, width,
    payload (one range-coded stream), 8 bytes checksum of all before it

Numbers are unsigned LEB128. The checksum is BLAKE2b.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

MAGIC, VERSION = b"LASR", 1
_FINGERPRINT = _CHECKSUM = 8  # bytes
LARGEST_SIDE = 2**16  # pixels
LARGEST_AREA = 2**26  # pixels of all pictures of a file


class AnotherModel(ValueError):
    """A file was written by another model."""


class Run(NamedTuple):
    """Pictures of equal size: how many, and their size in pixels."""

    pictures: int  # a field named count would hide tuple.count
    height: int
    width: int


def write_container(runs: Sequence[Run], payload: bytes, fingerprint: bytes) -> bytes:
    """Returns a file's bytes.

    Args:
      runs: list of `Run`.
      payload: bytes.
      fingerprint: 8 bytes of the model that decodes it.

    Raises:
      ValueError: if there is no picture, or they are larger than a file may hold.
    """
    check_runs(runs)
    if len(fingerprint) != _FINGERPRINT:
        raise ValueError(f"a fingerprint has 8 bytes, got {len(fingerprint)}.")
    head = MAGIC + bytes([VERSION]) + fingerprint + _number(len(runs))
    body = head + b"".join(_number(n) for run in runs for n in run) + payload
    return body + _checksum(body)


def read_container(data: bytes, fingerprint: bytes) -> tuple[list[Run], bytes]:
    """Returns `(runs, payload)` of a file's bytes.

    Raises:
      ValueError: if the data is no such file, newer, damaged, or another model's.
    """
    data = bytes(data)
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("the data is not a compressed picture of laser_jax: its magic differs.")
    start = len(MAGIC) + 1
    if len(data) < start + _FINGERPRINT + _CHECKSUM:
        raise ValueError(f"the file is truncated: it has only {len(data)} bytes.")
    if data[start - 1] != VERSION:
        raise ValueError(
            f"the file has version {data[start - 1]}, this code reads {VERSION}; update laser_jax."
        )
    body = data[:-_CHECKSUM]
    if _checksum(body) != data[-_CHECKSUM:]:
        raise ValueError("the file is damaged or truncated: its checksum does not fit.")
    if body[start : start + _FINGERPRINT] != fingerprint:
        raise AnotherModel(
            f"the file was written by another model: its fingerprint is "
            f"{body[start : start + _FINGERPRINT].hex()}, this model's is {fingerprint.hex()}."
        )
    place = start + _FINGERPRINT
    count, place = _read_number(body, place)
    runs = []
    for _ in range(min(count, len(body))):
        numbers = []
        for _ in Run._fields:
            number, place = _read_number(body, place)
            numbers.append(number)
        runs.append(Run(*numbers))
    check_runs(runs)
    return runs, body[place:]


def fingerprint_in(data: bytes) -> bytes:
    """Returns the fingerprint in the header of a file's bytes, b"" if it is no such file."""
    start = len(MAGIC) + 1
    return bytes(data[start : start + _FINGERPRINT]) if data[: len(MAGIC)] == MAGIC else b""


def fingerprint_of(*parts: Any) -> bytes:
    """Returns the 8 bytes that tell models apart.

    Args:
      *parts: bytes and arrays of the model, such as weights, in a fixed order.
    """
    digest = hashlib.blake2b(digest_size=_FINGERPRINT)
    for part in parts:
        if not isinstance(part, bytes):
            digest.update(f"{part.dtype} {part.shape}".encode())
            part = part.tobytes()
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _checksum(body):
    return hashlib.blake2b(body, digest_size=_CHECKSUM, person=b"laser_jax").digest()


def check_runs(runs: Sequence[Run]) -> None:
    """Raises ValueError unless there is a picture, and all are within a file's limits."""
    if not runs or any(min(run) < 1 for run in runs):
        raise ValueError("a file holds at least one picture, and pictures are not empty.")
    side = max(max(run.height, run.width) for run in runs)
    area = sum(run.pictures * run.height * run.width for run in runs)
    if side > LARGEST_SIDE or area > LARGEST_AREA:
        raise ValueError(
            f"a file holds sides up to {LARGEST_SIDE} pixels and {LARGEST_AREA} pixels in all, "
            f"got {side} and {area}; use several files."
        )


def _number(number):
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes((*found, number))


def _read_number(data, place):
    number = 0
    for shift in range(0, 35, 7):
        if place >= len(data):
            break
        number |= (data[place] & 127) << shift
        place += 1
        if data[place - 1] < 128:
            return number, place
    raise ValueError("the file is damaged: its header does not end.")
