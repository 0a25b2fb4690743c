"""The public names of the package as text: one line per field, member, property and method.

Modules are left out, since the home of a name may change while its import stays the same.
`python -m tests.support.public_api > tests/unit/public_api.txt` writes the committed text anew,
after a change of the public names that is meant.
"""

import dataclasses
import enum
import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from types import FunctionType, NoneType
from typing import Annotated, Any, Union, Unpack, get_args, get_origin

from pydantic import BaseModel

import position_sync_dagster as package

_MODULES = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])")
_OPTIONAL = re.compile(r"^Optional\[(.+)\]$")  # as Python before 3.14 shows some of `… | None`
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def public_api() -> str:
    """Return the description of every exported name, in alphabetical order."""
    return "\n".join(line for name in sorted(package.__all__) for line in _describe(name)) + "\n"  # type: ignore[attr-defined]


def _describe(name: str) -> Iterator[str]:
    value = getattr(package, name)
    if inspect.isfunction(value):
        yield f"{_async(value)}def {name}{_signature(value)}"
        return
    if not inspect.isclass(value):
        yield f"{name} = {_type(value)}"
        return

    yield f"class {name}({', '.join(base.__name__ for base in value.__bases__)})"
    if issubclass(value, enum.Enum):
        yield from (f"  {member.name} = {member.value!r}" for member in value)
    elif issubclass(value, BaseModel):
        for field, info in value.model_fields.items():
            yield f"  {field}: {_type(info.annotation)} = {_plain(repr(info.default))}"
    elif not getattr(value, "_is_protocol", False):
        yield f"  __init__{_signature(value)}"
    if dataclasses.is_dataclass(value):
        yield f"  fields: {', '.join(field.name for field in dataclasses.fields(value))}"
    yield from _methods(value)


def _methods(cls: type) -> Iterator[str]:
    """Yield public methods and properties, those inherited inside the package included."""
    found: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] == package.__name__:
            found |= vars(base)

    for name, member in sorted(found.items()):
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            yield f"  {name}: {_type(inspect.signature(member.fget).return_annotation)}"
        elif isinstance(member, cached_property):
            yield f"  {name}: {_type(inspect.signature(member.func).return_annotation)}"
        elif isinstance(member, classmethod | staticmethod):
            function = member.__func__
            yield f"  {type(member).__name__} {_async(function)}{name}{_signature(function)}"
        elif isinstance(member, FunctionType):
            yield f"  {_async(member)}{name}{_signature(member)}"


def _async(function: object) -> str:
    return "async " if inspect.iscoroutinefunction(function) else ""


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    shown = [
        parameter.replace(annotation=_Shown(_type(parameter.annotation)))
        for name, parameter in signature.parameters.items()
        if name not in ("self", "cls")
    ]
    result = _Shown(_type(signature.return_annotation))
    text = str(signature.replace(parameters=shown, return_annotation=result))
    return _plain(text) + _options(signature)


def _options(signature: inspect.Signature) -> str:
    """Spell out the keywords behind `**options: Unpack[…]`: they belong to the signature."""
    text = ""
    for parameter in signature.parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            continue

        for keywords in get_args(parameter.annotation):
            types = [f"{name}: {_type(of)}" for name, of in keywords.__annotations__.items()]
            text += f" with {', '.join(types)}"

    return text


@dataclasses.dataclass(frozen=True)
class _Shown:
    """An annotation that is shown as the given text."""

    text: str

    def __repr__(self) -> str:
        return self.text


def _type(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return "?"
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]  # the rest is documentation
    if get_origin(annotation) is Unpack:
        return f"Unpack[{get_args(annotation)[0].__name__}]"
    if get_origin(annotation) is Union:  # as Python before 3.14 shows some of `… | …`
        return " | ".join(
            "None" if get_arg is NoneType else _type(get_arg) for get_arg in get_args(annotation)
        )
    return _plain(inspect.formatannotation(annotation))


def _plain(text: str) -> str:
    # Pydantic before 2.14 has another name for it.
    text = text.replace("_PydanticGeneralMetadata(allow_inf_nan", "AllowInfNan(allow_inf_nan")
    return _OPTIONAL.sub(r"\1 | None", _ADDRESS.sub("", _MODULES.sub("", text)))


if __name__ == "__main__":
    print(public_api(), end="")
