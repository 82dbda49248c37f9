"""Decide by an event's payload whether a target wants it: a part of the event patterns of Amazon EventBridge."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from djwebhooks.exceptions import InvalidTarget
from djwebhooks.payload import matches

#: Characters of a filter as JSON, and objects in each other, at most.
MOST_CHARACTERS, MOST_DEPTH = 2048, 8
#: What stands for a field that is not there.
ABSENT = object()

#: A filter: an object like the payload, with a list of alternatives where that has a value.
Filter = Mapping[str, Any]


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
    if len(test) != 1 or name not in TESTS:
        raise InvalidTarget(f"{name_place(place)} must be an object of one of {', '.join(TESTS)}, not {test!r}.")
    if fault := TESTS[name][0](test[name]):
        raise InvalidTarget(f"{name_place(f'{place}.{name}')} must be {fault}, not {test[name]!r}.")


def name_place(place: str) -> str:
    """Say where in a filter something is."""
    return f"filter {place!r}" if place else "The filter"


# -- matching ----------------------------------------------------------------------------------------------------------


def fits(pattern: Filter, payload: object) -> bool:
    """Whether *payload* is what *pattern*, which was checked, asks for: all of its fields, each by one of its alternatives."""
    return isinstance(payload, Mapping) and all(_fits(wanted, payload.get(name, ABSENT)) for name, wanted in pattern.items())


def _fits(wanted: Any, value: object) -> bool:
    if isinstance(wanted, Mapping):
        inside = value if isinstance(value, list) else [{} if value is ABSENT else value]
        return any(fits(wanted, item) for item in inside)
    values = value if isinstance(value, list) else [value]
    return any(_is_one(alternative, value, values) for alternative in wanted)


def _is_one(alternative: Any, value: object, values: list[object]) -> bool:
    if not isinstance(alternative, Mapping):
        return any(_equals(alternative, item) for item in values)
    [(name, argument)] = alternative.items()
    if name == "exists":
        return (value is not ABSENT) is argument
    return any(item is not ABSENT and TESTS[name][1](argument, item) for item in values)


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equals(wanted: object, value: object) -> bool:
    """As in JSON: 1 is 1.0, but it is not true."""
    return wanted == value and isinstance(wanted, bool) == isinstance(value, bool)


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

#: Tests by their names: what an argument must be, if it is not, and whether a value stands the test with one.
TESTS: Mapping[str, tuple[Callable[[Any], str], Callable[[Any, Any], bool]]] = {
    "prefix": (_find_text_fault, lambda start, value: isinstance(value, str) and value.startswith(start)),
    "suffix": (_find_text_fault, lambda end, value: isinstance(value, str) and value.endswith(end)),
    "equals-ignore-case": (
        _find_text_fault,
        lambda text, value: isinstance(value, str) and value.casefold() == text.casefold(),
    ),
    "anything-but": (_find_choice_fault, lambda but, value: not any(_equals(item, value) for item in _list(but))),
    "numeric": (
        _find_range_fault,
        lambda limits, value: _is_number(value) and all(SIGNS[sign](value, number) for sign, number in _pair(limits)),
    ),
    "exists": (lambda argument: "" if isinstance(argument, bool) else "true or false", lambda argument, value: True),
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


def lets_through(filters: Mapping[str, Filter], events: list[str], name: str, payload: object) -> bool:
    """Whether a target with these *filters*, which is subscribed to *events*, wants the event *name* with *payload*.

    It does if one of the subscriptions to it has no filter, or one that fits.
    """
    wanted = [event for event in events if matches(event, name)]
    return not wanted or any(event not in filters or fits(filters[event], payload) for event in wanted)
