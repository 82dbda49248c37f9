"""Calls of hooks that the type checker must take, and others that it must refuse: ``make types`` reads it, nothing runs it."""

from djwebhooks.decorators import hook
from djwebhooks.models import Event


@hook("project.update")
def updated(title: str, *, number: int = 0) -> dict[str, str]:
    return {"title": title}


@updated.version("2024-01")
def updated_2024(title: str, *, number: int = 0) -> list[str]:
    return [title]


@updated.version("2023-01")  # type: ignore[arg-type]  # refused: it has other parameters
def updated_2023(title: int) -> int:
    return title


class Project:
    """Has a hook that is a method."""

    @hook("project.closed")
    def closed(self, why: str) -> str:
        return why


def call_rightly() -> None:
    event: Event = updated("x", number=3)
    event = Project().closed("done")
    name: str = updated.event
    old: list[str] = updated_2024("x")
    str((event, name, old))


def call_wrongly() -> None:
    updated(5)  # type: ignore[arg-type]  # refused
    updated("x", numbr=3)  # type: ignore[call-arg]  # refused
    Project().closed(5)  # type: ignore[arg-type]  # refused
    number: int = updated("x")  # type: ignore[assignment]  # refused
    str(number)
