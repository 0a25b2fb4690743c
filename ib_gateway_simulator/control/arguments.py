"""What arguments of actions may be, and how JSON writes those that it has no type for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from ib_gateway_simulator.gateway.scripts import Cut
from ib_gateway_simulator.market.sessions import checked


def _from_hex(value: object) -> bytes:
    return bytes.fromhex(str(value))


def _text_unless_finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
WholeNumber = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65535)]
Zone = Annotated[str, Field(max_length=60)]
Hours = Annotated[str, AfterValidator(checked)]

# A number as it is sent: one that is not finite is text.
Sent = Annotated[float | str | None, BeforeValidator(_text_unless_finite)]

# Bytes, which JSON has as hexadecimal digits.
Bytes = Annotated[bytes, BeforeValidator(_from_hex)]

# A message of a script; see `gateway.scripts`.
Message = Sequence[str] | Cut | Bytes
