"""The ``hook`` decorator: a function that builds a payload becomes one that fires an event."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from django.db.models import Model

from djwebhooks import capture, catalogue, events
from djwebhooks.exceptions import ConfigurationError, InvalidEvent
from djwebhooks.models import Event
from djwebhooks.names import check_name
from djwebhooks.subjects import find_instances
from djwebhooks.versions import check_versions

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")
#: An option of ``fire``: a constant, or a callable over the function's arguments.
Option = Any
#: Parameters of the function that are options by their name alone.
BY_NAME = ("owner", "identifier")
#: What dj-webhooks called ``hook``, by how it sent.
OLD_NAMES = {"webhook"} | {f"{way}_{noun}" for way in ("redis", "redisq", "redislog") for noun in ("hook", "webhook")}


class Hook(Protocol[P, R_co]):
    """What ``hook`` makes of a function: calling it fires, ``build`` calls the function itself."""

    is_hook: bool
    is_live: bool
    event: str
    #: The name of who sends, if any, or what finds it for a call.
    sender: str | Callable[..., str]
    build: Callable[..., Any]
    #: What its version is called, if anything; and the functions that build the other versions, by their names.
    current: str
    versions: Mapping[str, Callable[..., Any]]

    def version(self, name: str) -> Callable[[Callable[P, R]], Callable[P, R]]: ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Event: ...

    @overload
    def __get__(self, instance: None, owner: type) -> "Hook[P, R_co]": ...

    @overload
    def __get__(self: "Hook[Concatenate[S, Q], R_co]", instance: S, owner: type | None = None) -> "Hook[Q, R_co]": ...


def hook(
    event: str,
    *,
    build: Literal["worker", "now"] = "worker",
    live: bool = False,
    owner: Option = None,
    identifier: str | Callable[..., str] | None = None,
    ordering_key: str | Callable[..., str] | None = None,
    broadcast: bool | Callable[..., bool] = False,
    idempotency_key: str | Callable[..., str] = "",
    expires_at: datetime | Callable[..., datetime | None] | None = None,
    deliver_at: datetime | Callable[..., datetime | None] | None = None,
    coalesce: events.Coalesce | Callable[..., events.Coalesce] = None,
    urls: Option = None,
    subjects: Iterable[Model] | Callable[..., Iterable[Model]] | None = None,
    sender: str | Callable[..., str] = "",
    version: str = "",
    using: str | None = None,
) -> Callable[[Callable[P, R_co]], Hook[P, R_co]]:
    """Make calling a function fire *event*, with what the function returns as the payload.

    The function runs in the worker, on arguments that are captured by value at the call; ``build="now"`` runs it at the call.
    What it reads from the database in the worker is what is there then: ``live=True`` says that this is meant. The other
    options are those of ``fire``, each a constant or a callable over the function's arguments. Without them, the function's
    own parameters ``owner`` and ``identifier`` are taken, and the model instances among its arguments are the subjects.

    The result is a plain function with the same signature. Calling it returns the saved ``Event``, ``.build`` is the function.
    ``@….version(name)`` makes a further function, of the same parameters, build the payload in another version from the same
    call, and leaves it what it is; *version* is what that of the first function is called.
    Raises ``InvalidEvent`` and ``ConfigurationError`` at the decoration; the call raises what ``fire`` raises,
    ``CaptureError`` (a ``TypeError``) for an argument that cannot be captured, and ``ConfigurationError`` if a worker would not
    find the function by its name.
    """
    if callable(event):
        raise InvalidEvent('hook needs the name of an event: write @hook("project.update"), not @hook.')
    check_name(event)
    check_versions(version, ())
    if build not in ("worker", "now"):
        raise ConfigurationError(f'build={build!r} is not possible: it is "worker" or "now".')
    _check_sender(sender)
    given: dict[str, Option] = {
        "owner": owner,
        "identifier": identifier,
        "ordering_key": ordering_key,
        "broadcast": broadcast,
        "idempotency_key": idempotency_key,
        "expires_at": expires_at,
        "deliver_at": deliver_at,
        "coalesce": coalesce,
        "urls": urls,
        "subjects": subjects,
        "sender": sender,
        "using": using,
    }

    def decorate(function: Callable[P, R_co]) -> Hook[P, R_co]:
        capture.check_callable(function)
        if getattr(function, "is_hook", False):
            raise ConfigurationError(f"{function!r} is a hook already. For two events write two hooks.")
        path = capture.path_of(function) if build == "worker" else ""
        signature = inspect.signature(function)
        constants = {name: value for name, value in given.items() if value is not None}
        versions: dict[str, Callable[..., Any]] = {}
        check_once = cache(partial(capture.check_found, path, function))

        @wraps(function)
        def fire(*args: P.args, **kwargs: P.kwargs) -> Event:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{fire.__qualname__}(): {error}") from None
            options = choose_options(constants, bound)
            if build == "now":
                others = {name: other(*args, **kwargs) for name, other in versions.items()}
                unsaved = events.write_payloads(function(*args, **kwargs), version, others)
            else:
                check_once()
                unsaved = Event(hook=path, call=capture.capture(args, kwargs))
            return events.save(event, unsaved, **options)

        made = cast(Hook[P, R_co], fire)
        made.is_hook, made.is_live, made.event, made.build = True, live, event, function
        made.sender, made.current, made.versions = sender, version, versions
        catalogue.hooks.add(made)
        made.version = partial(_add_version, cast("Hook[..., Any]", made))  # type: ignore[method-assign]  # a function's attribute
        return made

    return decorate


def _check_sender(sender: object) -> None:
    """Raise ``ConfigurationError`` for what cannot say who sends. Whether there is one of that name, a system check says."""
    if isinstance(sender, type) or not (isinstance(sender, str) or callable(sender)):
        raise ConfigurationError(
            f"sender={sender!r} is not possible: it is a name of DJWEBHOOKS_SENDERS, "
            "or a function of the call's arguments that returns one."
        )


def _add_version(made: Hook[..., Any], name: str) -> Callable[[F], F]:
    """Make the function that is decorated build what *made* fires in the version *name*; it stays what it is.

    Raises ``InvalidEvent`` for a name that cannot be, or is taken, and ``ConfigurationError`` for a function that cannot be
    called as the hook is, or that would take the hook's place.
    """
    check_versions(made.current, [*made.versions, name])

    def decorate(function: F) -> F:
        capture.check_callable(function)
        if getattr(function, "is_hook", False):
            raise ConfigurationError(f"{function!r} is a hook: decorate a plain function with .version({name!r}), and no @hook.")
        if made.build.__qualname__ == getattr(function, "__qualname__", ""):
            raise ConfigurationError(f"{function!r} would take the place of the hook: give it another name.")
        if _parameters(function) != _parameters(made.build):
            raise ConfigurationError(f"{function!r} must have the parameters of the hook, {inspect.signature(made.build)}.")
        cast("dict[str, Any]", made.versions)[name] = function
        return function

    return decorate


def _parameters(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    return [(name, parameter.kind) for name, parameter in inspect.signature(function).parameters.items()]


def choose_options(given: Mapping[str, Option], bound: inspect.BoundArguments) -> dict[str, Any]:
    """Return the options of ``fire`` for one call of a hook."""
    bound.apply_defaults()
    options = {name: bound.arguments[name] for name in BY_NAME if name in bound.arguments}
    for name, value in given.items():
        options[name] = value(*bound.args, **bound.kwargs) if callable(value) else value
    if "subjects" not in options:
        options["subjects"] = find_instances([*bound.args, *bound.kwargs.values()])
    if options.get("identifier") is None:
        options.pop("identifier", None)
    return options


if not TYPE_CHECKING:  # For type checkers any name would exist.

    def __getattr__(name: str) -> Any:
        """Return ``hook`` for a name that dj-webhooks had for it."""
        if name not in OLD_NAMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        warnings.warn(f"{name} is called hook now: import that from {__name__}.", DeprecationWarning, stacklevel=2)
        return hook
