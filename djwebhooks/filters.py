"""Decide by an event's payload whether a target wants it: a part of the event patterns of Amazon EventBridge."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from djwebhooks.exceptions import InvalidTarget
from djwebhooks.names import matches

#: Characters of a filter as JSON, and objects in each other, at most; and characters of all filters of a target.
MOST_CHARACTERS, MOST_DEPTH, MOST_CHARACTERS_OF_ALL = 2048, 8, 16 * 1024
#: Items of a list that are looked at, the first ones; and comparisons that one judgement may take.
MOST_ITEMS, MOST_COMPARISONS = 1000, 10_000
#: What stands for a field that is not there.
ABSENT = object()

#: A filter: an object like the payload, with a list of alternatives where that has a value.
Filter = Mapping[str, Any]
#: A test of a value.
Test = Callable[[Any], bool]


def check_filter(pattern: object) -> None:
    """Raise ``InvalidTarget``, which names the place, for what is no filter.

    See https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html: this is a part of it.
    """
    try:
        text = json.dumps(pattern, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidTarget(f"A filter is a JSON object: {error}") from None
    if len(text) > MOST_CHARACTERS:
        raise InvalidTarget(f"A filter may have {MOST_CHARACTERS} characters of JSON; this one has {len(text)}.")
    if "\\u0000" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InvalidTarget("A filter has a character that a database cannot hold (NUL or a lone surrogate).")
    _check_fields(pattern, "", 1)


def _check_fields(pattern: object, place: str, depth: int) -> None:
    if not isinstance(pattern, Mapping) or not pattern:
        raise InvalidTarget(f"{name_place(place)} must be an object of fields, not {pattern!r}.")
    if depth > MOST_DEPTH:
        raise InvalidTarget(f"{name_place(place)} is {depth} objects deep; {MOST_DEPTH} are possible.")
    for name, wanted in pattern.items():
        if not isinstance(name, str):
            raise InvalidTarget(f"{name_place(place)} has the field {name!r}: names are texts.")
        inner = f"{place}.{name}" if place else name
        if isinstance(wanted, Mapping):
            _check_fields(wanted, inner, depth + 1)
        else:
            _check_alternatives(wanted, inner)


def _check_alternatives(wanted: object, place: str) -> None:
    if not isinstance(wanted, list) or not wanted:
        raise InvalidTarget(f'{name_place(place)} must be a list of alternatives, such as ["a"], or an object, not {wanted!r}.')
    for number, alternative in enumerate(wanted):
        if isinstance(alternative, Mapping):
            _check_test(alternative, f"{place}[{number}]")
        elif not _is_scalar(alternative):
            raise InvalidTarget(f"{name_place(f'{place}[{number}]')} must be a text, a number, true, false, null or a test.")


def _check_test(test: Mapping[str, Any], place: str) -> None:
    name = next(iter(test), "")
    if len(test) != 1 or name not in FAULTS:
        raise InvalidTarget(f"{name_place(place)} must be an object of one of {', '.join(FAULTS)}, not {test!r}.")
    if fault := FAULTS[name](test[name]):
        raise InvalidTarget(f"{name_place(f'{place}.{name}')} must be {fault}, not {test[name]!r}.")


def name_place(place: str) -> str:
    """Say where in a filter something is."""
    return f"filter {place!r}" if place else "The filter"


# -- matching ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Alternatives:
    """A list of alternatives, sorted so that a value is looked up among any number of scalars at once."""

    scalars: frozenset[object]
    tests: Sequence[Test]
    #: Whether the field may, or may not, exist whatever its value.
    exists: frozenset[bool]

    @classmethod
    def sort(cls, wanted: Iterable[Any]) -> Self:
        scalars, tests, exists = set[object](), list[Test](), set[bool]()
        for alternative in wanted:
            if not isinstance(alternative, Mapping):
                scalars.add(_key(alternative))
                continue
            [(name, argument)] = alternative.items()
            if name == "exists":
                exists.add(argument)
            else:
                tests.append(TESTS[name](argument))
        return cls(frozenset(scalars), tests, frozenset(exists))


class Effort:
    """What one judgement has still to spend, and what it has sorted."""

    def __init__(self) -> None:
        self._left = MOST_COMPARISONS
        #: By the ids of the lists, which are a part of the filters that are judged by.
        self._sorted: dict[int, Alternatives] = {}

    def spend(self, count: int) -> None:
        """Make *count* comparisons. Raises ``_TooCostly``."""
        self._left -= count
        if self._left < 0:
            raise _TooCostly

    def sort(self, wanted: Iterable[Any]) -> Alternatives:
        """Return the list of alternatives *wanted*, sorted once."""
        if id(wanted) not in self._sorted:
            self._sorted[id(wanted)] = Alternatives.sort(wanted)
        return self._sorted[id(wanted)]


class _TooCostly(Exception):
    """There is nothing left to spend."""


def fits(pattern: Filter, payload: object, effort: Effort) -> bool:
    """Whether *payload* is what *pattern*, which was checked, asks for: all of its fields, each by one of its alternatives."""
    return isinstance(payload, Mapping) and all(
        _fits(wanted, payload.get(name, ABSENT), effort) for name, wanted in pattern.items()
    )


def _fits(wanted: Any, value: object, effort: Effort) -> bool:
    items = value[:MOST_ITEMS] if isinstance(value, list) else [value]
    effort.spend(1 + len(items))
    if isinstance(wanted, Mapping):
        # In what is no object there are no fields, which may be what is wanted.
        return any(fits(wanted, item if isinstance(item, Mapping) else {}, effort) for item in items or [ABSENT])
    alternatives = effort.sort(wanted)
    if (value is not ABSENT) in alternatives.exists:
        return True
    return value is not ABSENT and (
        any(_key(item) in alternatives.scalars for item in items)
        or any(_holds(test, items, effort) for test in alternatives.tests)
    )


def _holds(test: Test, items: Sequence[object], effort: Effort) -> bool:
    effort.spend(len(items))
    return any(map(test, items))


def _key(value: object) -> object:
    """What two values have in common that are the same in JSON: 1 is 1.0, but it is not true. Lists and objects have none."""
    return (isinstance(value, bool), value) if _is_scalar(value) else ABSENT


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _list(argument: object) -> list[object]:
    return argument if isinstance(argument, list) else [argument]


def _find_text_fault(argument: object) -> str:
    return "" if isinstance(argument, str) and argument else "a text"


def _find_choice_fault(argument: object) -> str:
    values = _list(argument)
    return "" if values and all(map(_is_scalar, values)) else "a text, a number, true, false, null, or a list of these"


def _find_range_fault(argument: object) -> str:
    is_range = isinstance(argument, list) and len(argument) in (2, 4)
    is_right = is_range and all(
        isinstance(sign, str) and sign in SIGNS and _is_number(number) for sign, number in _pair(argument)
    )
    return "" if is_right else 'one or two comparisons with numbers, such as [">", 0, "<=", 5]'


def _pair(argument: Any) -> Iterator[tuple[Any, Any]]:
    yield from zip(argument[::2], argument[1::2], strict=True)


#: Signs of comparisons, and what they mean.
SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda value, number: value == number,
    "<": lambda value, number: value < number,
    "<=": lambda value, number: value <= number,
    ">": lambda value, number: value > number,
    ">=": lambda value, number: value >= number,
}


def _ignore_case(text: str) -> Test:
    folded = text.casefold()
    # Folding makes no text shorter, so that a long one need not be folded at all.
    return lambda value: isinstance(value, str) and len(value) <= len(folded) and value.casefold() == folded


def _exclude(argument: object) -> Test:
    excluded = frozenset(map(_key, _list(argument)))
    return lambda value: _key(value) not in excluded


def _compare(argument: object) -> Test:
    limits = [(SIGNS[sign], number) for sign, number in _pair(argument)]
    return lambda value: _is_number(value) and all(compare(value, number) for compare, number in limits)


#: What the argument of each test must be, said of one that it cannot be.
FAULTS: Mapping[str, Callable[[Any], str]] = {
    "prefix": _find_text_fault,
    "suffix": _find_text_fault,
    "equals-ignore-case": _find_text_fault,
    "anything-but": _find_choice_fault,
    "numeric": _find_range_fault,
    "exists": lambda argument: "" if isinstance(argument, bool) else "true or false",
}

#: Tests of a value, made of their arguments.
TESTS: Mapping[str, Callable[[Any], Test]] = {
    "prefix": lambda start: lambda value: isinstance(value, str) and value.startswith(start),
    "suffix": lambda end: lambda value: isinstance(value, str) and value.endswith(end),
    "equals-ignore-case": _ignore_case,
    "anything-but": _exclude,
    "numeric": _compare,
}


# -- a target's filters ------------------------------------------------------------------------------------------------


def check_filters(filters: object) -> None:
    """Raise ``InvalidTarget`` for what is no object of filters by the events that they are for."""
    if not isinstance(filters, Mapping):
        raise InvalidTarget(f'filters must be an object, such as {{"order.*": {{"status": ["paid"]}}}}, not {filters!r}.')
    for event, pattern in filters.items():
        try:
            check_filter(pattern)
        except InvalidTarget as error:
            raise InvalidTarget(f"filters[{event!r}]: {error.message}") from None
    length = len(json.dumps(filters, ensure_ascii=False, skipkeys=True))
    if length > MOST_CHARACTERS_OF_ALL:
        raise InvalidTarget(
            f"The filters of a target may have {MOST_CHARACTERS_OF_ALL} characters of JSON together; these have {length}."
        )


def judge(filters: Mapping[str, Filter], events: list[str], name: str, payload: object) -> bool | None:
    """Whether a target with these *filters*, which is subscribed to *events*, wants the event *name* with *payload*.

    It does if one of the subscriptions to it has no filter, or one that fits. ``None`` is for what takes too many comparisons.
    """
    wanted = [event for event in events if matches(event, name)]
    if not wanted or any(event not in filters for event in wanted):
        return True
    effort = Effort()
    try:
        return any(fits(filters[event], payload, effort) for event in wanted)
    except _TooCostly:
        return None
