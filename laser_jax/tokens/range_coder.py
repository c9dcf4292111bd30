"""An entropy coder of integers: symbols with integer weights to bytes and back.

A range coder with carry, 64 bits wide, so the weights of a distribution may sum up to 2^44. All
arithmetic is in Python's integers: the same bytes give the same symbols on every machine.

References:
  Martin, Range encoding: an algorithm for removing redundancy from a digitised message, 1979.
"""

_TOP, _BOTTOM, _MASK = 1 << 64, 1 << 56, (1 << 64) - 1
LARGEST_ESCAPE = 2**31  # integers of `encode_integer` are below it


class RangeEncoder:
    """Writes symbols. `encode` narrows an interval, `finish` returns a number inside it."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._low, self._range = 0, _MASK

    def encode(self, start: int, weight: int, total: int) -> None:
        """Writes the symbol that has the weights `[start, start + weight)` of `total`."""
        step = self._range // total
        self._low += step * start
        self._range = step * weight
        if self._low >= _TOP:
            self._carry()
        while self._range < _BOTTOM:
            self._bytes.append(self._low >> 56)
            self._low = self._low << 8 & _MASK
            self._range <<= 8

    def encode_integer(self, integer: int) -> None:
        """Writes an integer in [0, 2^31 - 1) in 2 log2 (integer + 1) + 1 bits (Elias gamma)."""
        if not 0 <= integer < LARGEST_ESCAPE - 1:
            raise ValueError(f"the integer must be in [0, 2^31 - 1), got {integer}.")
        length = (integer + 1).bit_length() - 1
        for _ in range(length):
            self.encode(1, 1, 2)
        self.encode(0, 1, 2)
        self.encode(integer + 1 - (1 << length), 1, 1 << length)

    def finish(self) -> bytes:
        """Returns all bytes, the shortest that decode; nothing can be written after it."""
        # The multiple of the largest power of 256 in the interval: zeros at the end are implied.
        for zeros in (1 << shift for shift in range(56, -8, -8)):
            number = -(-self._low // zeros) * zeros
            if number < self._low + self._range:
                break
        self._low = number
        if self._low >= _TOP:
            self._carry()
        return bytes(self._bytes + self._low.to_bytes(8, "big")).rstrip(b"\0")

    def _carry(self):
        self._low &= _MASK
        place = len(self._bytes) - 1
        while self._bytes[place] == 255:
            self._bytes[place] = 0
            place -= 1
        self._bytes[place] += 1


class RangeDecoder:
    """Reads the symbols of a `RangeEncoder`'s bytes, with the same distributions in turn.

    Invalid bytes give wrong symbols; only `decode_integer` raises an error.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._place = bytes(data), 8
        self._code, self._range = int.from_bytes(self._data[:8].ljust(8, b"\0"), "big"), _MASK

    def target(self, total: int) -> int:
        """Returns the number in [0, total) that the next symbol's interval contains."""
        self._step = self._range // total
        return min(self._code // self._step, total - 1)

    def consume(self, start: int, weight: int) -> None:
        """Takes the symbol `[start, start + weight)`, that which contains `target`."""
        self._code -= self._step * start
        self._range = self._step * weight
        while self._range < _BOTTOM:
            byte = self._data[self._place] if self._place < len(self._data) else 0
            self._code = (self._code << 8 | byte) & _MASK
            self._range <<= 8
            self._place += 1

    def decode_integer(self) -> int:
        """Returns an integer of `encode_integer`.

        Raises:
          ValueError: if the data is not valid.
        """
        length = 0
        while self._uniform(2):
            length += 1
            if length > 30:
                raise ValueError("the payload is damaged: an integer has more than 31 bits.")
        return (1 << length) - 1 + self._uniform(1 << length)

    def _uniform(self, total):
        number = self.target(total)
        self.consume(number, 1)
        return number

    def exhausted(self) -> bool:
        """Returns whether all bytes have been read; then what was read is all that was written."""
        return self._place >= len(self._data)
