"""Capture a call by value as one JSON text, and rebuild it in another process."""

import dataclasses
import inspect
import io
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from importlib import import_module
from types import NoneType
from typing import Any
from uuid import UUID

from django.apps import apps
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.core.files.base import File
from django.db.models import Field, Model, QuerySet
from django.db.models.base import ModelBase
from django.db.models.expressions import DatabaseDefault
from django.db.models.fields.files import FieldFile
from django.db.models.manager import BaseManager
from django.db.models.query import RawQuerySet
from django.http import HttpRequest
from django.utils.datastructures import MultiValueDict
from django.utils.functional import LazyObject, Promise

from djwebhooks.conf import conf
from djwebhooks.exceptions import CaptureError, ConfigurationError, RebuildError

#: The way from the call to a value inside it: an argument's name or position, then keys, indexes and ``Step``s.
Where = tuple[object, ...]

#: How deep values may be nested. A list that contains itself ends here, too.
MAX_DEPTH = 64

#: Integers from here on are written in hexadecimal: Python refuses to read more than 4,300 decimal digits.
BIG_INT = 1 << 63

#: How many times the size of a payload the arguments that it is built from may have.
SIZE_FACTOR = 4


class Step(str):
    """A part of a ``Where`` that is shown as it stands."""

    __slots__ = ()


# -- the call ----------------------------------------------------------------------------------------------------------


def capture(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return the arguments of a call as one JSON text, so that ``rebuild`` can make them again later and elsewhere.

    A model instance is the values of its concrete fields, its parents' included; deferred ones are loaded now. Related
    objects, annotations and other attributes are not part of it. A ``FileField`` is its name. Lazy strings and lazy objects
    are evaluated. Subclasses of ``str``, ``int``, ``list``, ``dict`` and the like come back as the built-in type.

    Raises ``CaptureError`` for everything that has no value of its own, such as a request, a function or a queryset, and for
    more than four times ``DJWEBHOOKS_PAYLOAD_LIMIT`` bytes.
    """
    text = dump(
        {
            "args": [encode(value, (position,)) for position, value in enumerate(args, start=1)],
            "kwargs": [[encode_text(name, (name,)), encode(value, (name,))] for name, value in kwargs.items()],
        }
    )
    check_size(text, args, kwargs)
    return text


def rebuild(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments that ``capture`` wrote into *text*.

    A field that the model no longer has is dropped, one that it did not have yet takes its default.

    Raises ``RebuildError`` when this process does not know a model or an enum that is named there.
    """
    call = json.loads(text, object_hook=decode)
    return tuple(call["args"]), dict(call["kwargs"])


def name_content(text: str) -> str:
    """Return what two calls must share to say the same thing: *text*, with users by their primary keys alone.

    A user who has logged in between two calls makes no difference to what the calls say.
    """
    return dump(json.loads(text, object_hook=shorten_user))


def shorten_user(found: dict[str, Any]) -> Any:
    content = found.get("$model")
    if content is None or not issubclass(model := decode_model_class(content["label"]), AbstractBaseUser):
        return found
    return {"$model": [content["label"], content["fields"].get(model._meta.pk.attname)]}


def dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))


def check_size(text: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    size = len(text.encode())
    limit = SIZE_FACTOR * conf.PAYLOAD_LIMIT
    if size <= limit:
        return
    named = [*enumerate(args, start=1), *kwargs.items()]
    sizes = {name: len(dump(encode(value, (name,))).encode()) for name, value in named}
    largest = max(sizes, key=lambda name: sizes[name])
    raise CaptureError(
        f"The arguments take {size} bytes when captured; {limit} are allowed ({SIZE_FACTOR} times DJWEBHOOKS_PAYLOAD_LIMIT). "
        f"The largest is {show((largest,))} with {sizes[largest]} bytes. Pass only what the payload needs, or use "
        'build="now".'
    )


# -- the hook's name ---------------------------------------------------------------------------------------------------


def path_of(function: Callable[..., Any]) -> str:
    """Return ``"module:qualified.name"``, by which ``resolve`` finds *function* in another process.

    Raises ``ConfigurationError`` for what cannot be found by a name or called by a worker: a lambda, a function inside a
    function, one of ``__main__``, an ``async def``, and anything that is no function.
    """
    check_callable(function)
    reason = why_unnameable(function)
    if reason:
        raise ConfigurationError(f"@hook cannot be used for {function!r}: {reason}")
    return f"{function.__module__}:{function.__qualname__}"


def check_callable(function: Callable[..., Any]) -> None:
    """Raise ``ConfigurationError`` for what cannot simply be called for its payload, wherever that is."""
    reason = ""
    if isinstance(function, classmethod | staticmethod):
        reason = f"write @hook below @{type(function).__name__}, next to the def."
    elif inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        reason = "it is an async def, and workers build payloads synchronously. Use a def."
    if reason:
        raise ConfigurationError(f"@hook cannot be used for {function!r}: {reason}")


def why_unnameable(function: Callable[..., Any]) -> str:
    if not inspect.isfunction(function):
        return "it is not a function. Decorate a def at the top level of a module or in a class."
    if function.__name__ == "<lambda>":
        return "a lambda has no name that a worker could find it by. Use a def at the top level of a module."
    if "<locals>" in function.__qualname__:
        return "a worker cannot find a function inside a function. Move it to the top level of its module."
    if function.__module__ in {None, "__main__", "builtins"}:
        return "it belongs to a script or a shell, which a worker cannot import. Move it to a module."
    return ""


def check_found(path: str, function: Callable[..., Any]) -> None:
    """Raise ``ConfigurationError`` unless *path* leads to the hook that was made of *function*, as far as modules are loaded."""
    try:
        is_right = getattr(resolve(path), "build", None) is function
    except RebuildError:
        is_right = False
    if not is_right:
        raise ConfigurationError(
            f"A worker that looks for {path!r} does not find the hook that was made of {function!r}. "
            'Decorate the function where it is defined, under a name that is its own, or use build="now".'
        )


def resolve(path: str) -> Callable[..., Any]:
    """Return the hook that ``path_of`` called *path*; a method comes back unbound, to be called with all that was captured.

    Raises ``RebuildError`` when nothing has that name in this process, or when it is no hook.
    """
    found = find(path)
    # Only a decorated function may be run: the path comes from a database row.
    if not callable(found) or getattr(found, "is_hook", False) is not True:
        raise RebuildError(f"{path!r} is not a hook in this process. Decorate it with @hook, and restart the workers.")
    hook: Callable[..., Any] = found.__func__ if inspect.ismethod(found) else found
    return hook


def find(path: str) -> object:
    """Return what ``"module:qualified.name"`` names, importing the module if need be."""
    module, _, names = path.partition(":")
    try:
        found: object = import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise RebuildError(f"{path!r} does not exist in this process ({exc}). Are the workers running the same code?") from exc
    return found


# -- values to JSON ----------------------------------------------------------------------------------------------------


def encode(value: Any, where: Where) -> Any:
    """Return *value* as something that JSON can hold; ``decode`` reads it."""
    encoder = ENCODERS.get(type(value))
    if encoder is None:
        encoder = next((encoder for kind, encoder in ENCODERS.items() if isinstance(value, kind)), refuse)
    return encoder(value, where)


def encode_as_is(value: Any, where: Where) -> Any:
    return value


def encode_lazy_object(value: "LazyObject[Any]", where: Where) -> Any:
    # Pickling is the public way to what a lazy object wraps: it reduces to (function, (wrapped,)).
    return encode(value.__reduce__()[1][0], where)


def encode_lazy_text(value: Promise, where: Where) -> str:
    return encode_text(str(value), where)


def encode_text(value: str, where: Where) -> str:
    if "\0" in value:
        raise error(where, value, "contains a NUL character, which databases refuse: remove it")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise error(where, value, f"contains a lone surrogate at {exc.start}, which is not valid text: remove it") from exc
    return value


def encode_int(value: int, where: Where) -> Any:
    return value if -BIG_INT < value < BIG_INT else {"$int": hex(value)}


def encode_float(value: float, where: Where) -> float:
    if value - value != 0:
        raise error(where, value, "is not a finite number: pass None, or a Decimal")
    return value


def encode_bytes(value: bytes | bytearray | memoryview, where: Where) -> Any:
    return {"$bytes": b64encode(value).decode()}


def encode_datetime(value: datetime, where: Where) -> Any:
    check_offset(value, where)
    return {"$datetime": value.isoformat()}


def encode_date(value: date, where: Where) -> Any:
    return {"$date": value.isoformat()}


def encode_time(value: time, where: Where) -> Any:
    check_offset(value, where)
    return {"$time": value.isoformat()}


def check_offset(value: datetime | time, where: Where) -> None:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise error(where, value, "has a time zone without a fixed offset: pass a datetime, or a time without zone")


def encode_timedelta(value: timedelta, where: Where) -> Any:
    return {"$timedelta": [value.days, value.seconds, value.microseconds]}


def encode_decimal(value: Decimal, where: Where) -> Any:
    return {"$decimal": str(value)}


def encode_uuid(value: UUID, where: Where) -> Any:
    return {"$uuid": value.hex}


def encode_enum(value: Enum, where: Where) -> Any:
    kind = type(value)
    path = f"{kind.__module__}:{kind.__qualname__}"
    if kind.__module__ == "__main__" or not is_found(path, kind):
        raise error(where, value, "belongs to an enum that a worker cannot import: move it to the top level of a module")
    # A combination of flags has no name of its own.
    return {"$enum": [path, encode(value.value, where) if isinstance(value, Flag) else value.name]}


def is_found(path: str, kind: type) -> bool:
    try:
        return find(path) is kind
    except RebuildError:
        return False


def encode_list(value: Iterable[Any], where: Where) -> list[Any]:
    check_depth(value, where)
    return [encode(item, (*where, index)) for index, item in enumerate(value)]


def encode_tuple(value: tuple[Any, ...], where: Where) -> Any:
    if hasattr(value, "_fields"):
        raise error(where, value, "is a named tuple, which would come back without its names: pass ._asdict() or tuple()")
    return {"$tuple": encode_list(value, where)}


def encode_set(value: set[Any] | frozenset[Any], where: Where) -> Any:
    check_depth(value, where)
    inside = (*where, Step("{…}"))
    # Sorted, so that equal calls are equal texts.
    items = sorted((encode(item, inside) for item in value), key=dump)
    return {"$frozenset" if isinstance(value, frozenset) else "$set": items}


def encode_dict(value: dict[Any, Any], where: Where) -> Any:
    check_depth(value, where)
    if hasattr(type(value), "__missing__"):
        raise error(where, value, "makes up missing keys, which it would no longer do when it comes back: pass dict()")
    pairs = [[encode(key, (*where, Step(" (a key)"))), encode(item, (*where, key))] for key, item in value.items()]
    is_plain = all(type(key) is str and not key.startswith("$") for key in value)
    return dict(pairs) if is_plain else {"$dict": pairs}


def check_depth(value: object, where: Where) -> None:
    if len(where) > MAX_DEPTH:
        raise error(where[:4], value, f"is nested deeper than {MAX_DEPTH} levels, or contains itself: pass something flatter")


# -- models to JSON ----------------------------------------------------------------------------------------------------


def encode_model_class(model: type[Model], where: Where) -> Any:
    if model is Model or model._meta.abstract:
        return refuse(model, where)
    return {"$class": model._meta.label}


def encode_model(instance: Model, where: Where) -> Any:
    load_deferred_fields(instance, where)
    fields = {}
    for field in instance._meta.concrete_fields:
        if isinstance(instance, AbstractBaseUser) and field.attname == "password":
            continue  # No payload needs it, and no row of ours should hold it.
        # What the database computes has no value before the row is saved.
        if not (field.generated and field.attname not in instance.__dict__):
            value = field.value_from_object(instance)
            if not isinstance(value, DatabaseDefault):
                fields[field.attname] = encode_field(field, instance, value, where)
    state = instance._state
    return {"$model": {"label": instance._meta.label, "database": state.db, "adding": state.adding, "fields": fields}}


def load_deferred_fields(instance: Model, where: Where) -> None:
    deferred = instance.get_deferred_fields()
    if deferred and (instance._state.adding or instance.pk is None):
        deferred -= {field.attname for field in instance._meta.concrete_fields if field.generated}
    if not deferred:
        return
    try:
        instance.refresh_from_db(fields=sorted(deferred))
    except ObjectDoesNotExist as exc:
        names = ", ".join(sorted(deferred))
        raise error(where, instance, f"has deferred fields ({names}) and no row to load them from: load it completely") from exc


def encode_field(field: "Field[Any, Any]", instance: Model, value: Any, where: Where) -> Any:
    if type(value) is str:
        return encode_text(value, (*where, Step(f".{field.attname}")))
    if isinstance(value, FieldFile):
        value = value.name
    where = (*where, Step(f".{field.attname}"))
    if hasattr(value, "resolve_expression"):
        raise error(where, value, "is an expression that the database has yet to compute: call refresh_from_db() first")
    try:
        return encode(value, where)
    except CaptureError:
        # A custom field's own type, or an infinite float: the field itself knows how to write it.
        return encode(field.value_to_string(instance), where)


# -- JSON to values ----------------------------------------------------------------------------------------------------


def decode(found: dict[str, Any]) -> Any:
    """Return what ``encode`` wrote as *found*, an object whose members are decoded already."""
    if len(found) != 1:
        return found
    [(tag, content)] = found.items()
    if not tag.startswith("$"):
        return found
    if tag not in DECODERS:
        raise RebuildError(f"A captured call contains {tag!r}, which this process cannot read. Do the workers run older code?")
    return DECODERS[tag](content)


def decode_enum(content: list[Any]) -> Any:
    path, name_or_value = content
    kind = find(path)
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        raise RebuildError(f"{path!r} is not an enum in this process. Are the workers running the same code?")
    try:
        return kind(name_or_value) if issubclass(kind, Flag) else kind[name_or_value]
    except (KeyError, ValueError) as exc:
        raise RebuildError(f"The enum {path!r} has no member {name_or_value!r} in this process.") from exc


def decode_model_class(label: str) -> type[Model]:
    try:
        return apps.get_model(label)
    except LookupError as exc:
        raise RebuildError(f"The model {label!r} does not exist in this process. Are the workers running the same code?") from exc


def decode_model(content: dict[str, Any]) -> Model:
    model = decode_model_class(content["label"])
    is_adding, captured = content["adding"], content["fields"]
    values = {}
    for field in model._meta.concrete_fields:
        if field.attname in captured:
            values[field.attname] = restore_field(field, captured[field.attname])
        elif has_default(field, is_adding):
            values[field.attname] = field.get_default()
    instance = model.from_db(content["database"], list(values), list(values.values()))
    instance._state.adding = is_adding
    return instance


def restore_field(field: "Field[Any, Any]", value: Any) -> Any:
    try:
        return field.to_python(value)
    except (ValidationError, TypeError, ValueError) as exc:
        if not isinstance(value, str):
            # Fields refuse some values that they can hold, such as Decimal("NaN").
            return value
        raise RebuildError(f"The field {field} cannot take the {len(value)} characters that were captured for it.") from exc


def has_default(field: "Field[Any, Any]", is_adding: bool) -> bool:
    """Whether Python knows the default: of a saved row only the database knows its own, so it is loaded when it is read."""
    return not field.generated and (is_adding or field.has_default() or not field.has_db_default())


# -- what cannot be captured -------------------------------------------------------------------------------------------


def refuse(value: Any, where: Where) -> Any:
    raise error(where, value, f"cannot be captured by value: {advise(value)}")


def error(where: Where, value: object, reason: str) -> CaptureError:
    kind = type(value)
    return CaptureError(f"{show(where)}, of type {kind.__module__}.{kind.__qualname__}, {reason}.")


def show(where: Where) -> str:
    """Return *where* in words, such as ``argument 'data'['items'][0].title``."""
    argument, *steps = where
    return f"argument {argument!r}" + "".join(step if isinstance(step, Step) else f"[{show_key(step)}]" for step in steps)


def show_key(key: object) -> str:
    # No other repr(): a model's may query the database.
    return repr(key) if isinstance(key, str | int) else type(key).__qualname__


def advise(value: object) -> str:
    for kinds, advice in ADVICE:
        if isinstance(value, kinds):
            return advice
    if getattr(value, "is_anonymous", False) is True:
        return "nobody is logged in. Check user.is_authenticated first, or pass None"
    if dataclasses.is_dataclass(value):
        return "pass dataclasses.asdict() of it"
    if callable(value):
        return "call it first, and pass its result"
    if isinstance(value, Iterable):
        return "pass list() of it"
    return 'pass the values that the payload needs from it, or use build="now"'


#: What to pass instead of a value of these types.
ADVICE: tuple[tuple[tuple[type, ...], str], ...] = (
    ((QuerySet, RawQuerySet), "pass list(queryset)"),
    ((BaseManager,), "pass list(manager.all())"),
    ((HttpRequest,), "pass what the payload needs from it, such as request.user"),
    ((MultiValueDict,), "pass .dict() of it, or dict(….lists())"),
    ((File, io.IOBase), "pass its name, or the bytes that it contains"),
    ((ModelBase,), "an abstract model has no label. Pass a concrete one"),
)

#: From the most special type to the most general one, for values of a type that is not in here itself.
ENCODERS: dict[type, Callable[[Any, Where], Any]] = {
    LazyObject: encode_lazy_object,
    Promise: encode_lazy_text,
    Model: encode_model,
    ModelBase: encode_model_class,
    Enum: encode_enum,
    NoneType: encode_as_is,
    bool: encode_as_is,
    str: encode_text,
    int: encode_int,
    float: encode_float,
    datetime: encode_datetime,
    date: encode_date,
    time: encode_time,
    timedelta: encode_timedelta,
    Decimal: encode_decimal,
    UUID: encode_uuid,
    bytes: encode_bytes,
    bytearray: encode_bytes,
    memoryview: encode_bytes,
    list: encode_list,
    tuple: encode_tuple,
    set: encode_set,
    frozenset: encode_set,
    MultiValueDict: refuse,
    dict: encode_dict,
}

DECODERS: dict[str, Callable[[Any], Any]] = {
    "$class": decode_model_class,
    "$model": decode_model,
    "$enum": decode_enum,
    "$int": lambda text: int(text, 16),
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$timedelta": lambda parts: timedelta(*parts),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$bytes": b64decode,
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$dict": dict,
}
