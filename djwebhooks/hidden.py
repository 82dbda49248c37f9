"""Secrets whose ``repr`` does not show them: what reports of errors and tools for debugging write of a variable is its repr."""

from typing import Any

#: What is shown instead.
SHOWN = "'…'"


class HiddenText(str):
    """A text that shows itself to whoever asks for it, by ``print`` or in JSON, and to nobody who only looks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return SHOWN

    def __str__(self) -> str:
        # Serializers and forms call str() on what they are given.
        return self


class HiddenBytes(bytes):
    """Bytes that only look like nothing."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"b{SHOWN}"


def hide(value: Any) -> Any:
    """Return *value* with all texts and bytes in it hidden; in dictionaries, the values alone."""
    match value:
        case str():
            return HiddenText(value)
        case bytes():
            return HiddenBytes(value)
        case dict():
            return {key: hide(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)([hide(item) for item in value])
        case _:
            return value
