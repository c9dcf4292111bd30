"""The type and range of a setting: a field of a constructor, or a key of a config.

    class Quantizer(nn.Module):
        num_embeddings: int = setting(512, COUNT)

        def __post_init__(self):
            super().__post_init__()
            check_settings(self)

A field's default and range are defined in its class alone. The config, its checks and its
reference in the docs take them from there.
"""

import dataclasses
import math
import numbers
import sys
from typing import Any, ClassVar

_INT32 = 2**31 - 1  # steps are counted in int32
_FLOAT = sys.float_info.max  # the largest finite number


class Setting:
    """The type and range of a value: `type` and `str(setting)` are their texts in the docs."""

    def check(self, key, value):
        """Raises ValueError unless the value is allowed for the key."""
        fault = self.fault(value)
        if fault:
            raise ValueError(f"{key} {fault}, got {value!r}.")

    def fault(self, value):
        """Returns the error in a value, None if it is allowed."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Integer(Setting):
    """An integer in [least, most], a multiple of `multiple_of`."""

    least: int
    most: int = _INT32
    multiple_of: int = 1
    type: ClassVar = "int"

    def fault(self, value):
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            return "must be an integer"
        if value < self.least:
            return f"must be at least {self.least}"
        if value > self.most:
            return f"must be at most {self.most}"
        return f"must be a multiple of {self.multiple_of}" if value % self.multiple_of else None

    def __str__(self):
        bounds = f">= {self.least}" if self.most == _INT32 else f"{self.least} to {self.most}"
        return bounds + f", a multiple of {self.multiple_of}" * (self.multiple_of > 1)


@dataclasses.dataclass(frozen=True)
class Real(Setting):
    """A finite number in [least, most]; `above` and `below` are exclusive bounds."""

    least: float | None = None
    above: float | None = None
    below: float | None = None
    most: float = _FLOAT
    type: ClassVar = "float"

    def fault(self, value):
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or math.isnan(value):
            return "must be a number"
        if self.least is not None and value < self.least:
            return f"must be at least {self.least:g}" if self.least else "must not be negative"
        if self.above is not None and value <= self.above:
            return f"must be above {self.above:g}"
        if self.below is not None and value >= self.below:
            return f"must be below {self.below:g}"
        if value > self.most:
            return "must be finite" if self.most == _FLOAT else f"must be at most {self.most:g}"
        return None

    def __str__(self):
        low = f"[{self.least:g}" if self.above is None else f"({self.above:g}"
        if self.below is not None:
            return f"{low}, {self.below:g})"
        if self.most < _FLOAT:
            return f"{low}, {self.most:g}]"
        return f">= {self.least:g}" if self.above is None else f"> {self.above:g}"


@dataclasses.dataclass(frozen=True)
class Choice(Setting):
    """One of several values of the same type."""

    values: tuple

    @property
    def type(self):
        """Its name in the docs."""
        return type(self.values[0]).__name__

    def check(self, key, value):
        if type(value).__name__ != self.type or value not in self.values:
            known = ", ".join(sorted(map(str, self.values)))
            raise ValueError(f"unknown {key} {value!r}; choose from {known}.")

    def __str__(self):
        return ", ".join(f"`{x}`" for x in self.values)


@dataclasses.dataclass(frozen=True)
class Flag(Setting):
    """True or False."""

    type: ClassVar = "bool"

    def fault(self, value):
        return None if isinstance(value, bool) else "must be True or False"

    def __str__(self):
        return "True, False"


@dataclasses.dataclass(frozen=True)
class Text(Setting):
    """A string that is not empty."""

    type: ClassVar = "str"

    def fault(self, value):
        return None if isinstance(value, str) and value.strip() else "must be a string, not empty"

    def __str__(self):
        return ""


@dataclasses.dataclass(frozen=True)
class Several(Setting):
    """A tuple of values of one kind; with `or_one`, a single value stands for all of them.

    It has `length` values, or if that is None any number from `least` on.
    """

    kind: Integer
    length: int | None = None
    or_one: bool = False
    least: int = 1

    @property
    def type(self):
        """Its name in the docs."""
        values = f"{self.length} {self.kind.type}s" if self.length else f"{self.kind.type}s"
        return f"{self.kind.type} or {values}" if self.or_one else values

    def fault(self, value):
        if not isinstance(value, tuple | list):
            return self.kind.fault(value) if self.or_one else f"must be a tuple of {self.type}"
        if len(value) != (self.length or max(len(value), self.least)):
            return f"must have {self.length or 'one or more'} values"
        return next((fault for fault in map(self.kind.fault, value) if fault), None)

    def __str__(self):
        return f"{self.kind} each"


@dataclasses.dataclass(frozen=True)
class Optional(Setting):
    """None, or a value that another setting allows."""

    kind: Setting

    @property
    def type(self):
        """Its name in the docs."""
        return f"{self.kind.type} or None"

    def check(self, key, value):
        if value is not None:
            self.kind.check(key, value)

    def __str__(self):
        return str(self.kind)


COUNT, COUNT_OR_NONE = Integer(1), Integer(0)
LEVELS = Integer(1, 16)  # of halvings of an image
WEIGHT, SHARE, RATE = Real(0), Real(0, below=1), Real(above=0)
PATCH = Several(Integer(1), length=2, or_one=True)


def setting(default: Any, range: Setting) -> Any:
    """Returns a dataclass field with a default and a range."""
    return dataclasses.field(default=default, metadata={"range": range})


def settings_of(cls: Any) -> dict[str, Setting]:
    """Returns name -> range of the fields of a dataclass that `setting` defined."""
    fields = dataclasses.fields(cls)
    return {field.name: field.metadata["range"] for field in fields if "range" in field.metadata}


def check_settings(values: Any) -> None:
    """Raises ValueError unless each field that `setting` defined is in its range."""
    for name, range in settings_of(values).items():
        range.check(name, getattr(values, name))


def as_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns an image size, the side of a square or (height, width), as `(height, width)`."""
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    return height, width
