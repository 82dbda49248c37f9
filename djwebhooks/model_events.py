"""Events about the application's own rows, fired when these are saved or deleted, without a line of code."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import connections, router, transaction
from django.db.models import Field, Model
from django.db.models.fields.files import FieldFile
from django.db.models.signals import ModelSignal, post_delete, post_save, pre_save
from django.utils.module_loading import import_string

from djwebhooks import payload
from djwebhooks.conf import conf
from djwebhooks.events import fire
from djwebhooks.exceptions import ConfigurationError, DjWebhooksError
from djwebhooks.owners import owner_model

#: What can become of a row.
CREATED, UPDATED, DELETED = HAPPENINGS = ("created", "updated", "deleted")
#: What an entry of ``DJWEBHOOKS_MODEL_EVENTS`` may say.
KEYS = ("on", "changed", "condition", "payload", "owner", "identifier", "broadcast")
#: An owner that is the row itself.
SELF = "self"

#: The values of fields, former and present, by name.
Changes = Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """An entry of ``DJWEBHOOKS_MODEL_EVENTS``, read."""

    name: str
    model: type[Model]
    happening: str
    #: The fields of which one must have changed; none means that any save will do.
    changed: tuple[str, ...]
    condition: Callable[[Any, Changes], bool] | None
    payload: Callable[[Any], object]
    owner: Callable[[Any], Any]
    identifier: Callable[[Any], str]
    broadcast: bool

    def fire(self, instance: Model, changes: Changes) -> None:
        """Fire the event about *instance*, if what it asks for is so."""
        if self.changed and not changes.keys() & set(self.changed):
            return
        if self.condition is not None and not self.condition(instance, changes):
            return
        fire(
            self.name,
            self.payload(instance),
            owner=self.owner(instance),
            identifier=self.identifier(instance),
            ordering_key=str(instance.pk),
            broadcast=self.broadcast,
            subjects=[instance],
        )


# -- reading the setting -----------------------------------------------------------------------------------------------


def read_all(told: object) -> list[ModelEvent]:
    """Read ``DJWEBHOOKS_MODEL_EVENTS``. Raises ``ConfigurationError`` for what cannot be."""
    if not isinstance(told, Mapping):
        raise ConfigurationError(f"DJWEBHOOKS_MODEL_EVENTS must be a dictionary of events, not {told!r}.")
    return [read(name, entry) for name, entry in told.items()]


def read(name: str, told: object) -> ModelEvent:
    """Read what is *told* of the event *name*. Raises ``ConfigurationError``."""
    try:
        payload.check_name(name)
        return _read(name, {"on": told} if isinstance(told, str) else told)
    except (DjWebhooksError, ImportError, FieldDoesNotExist) as error:
        raise ConfigurationError(f"DJWEBHOOKS_MODEL_EVENTS[{name!r}]: {error}") from error


def _read(name: str, entry: object) -> ModelEvent:
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"write 'app_label.Model.created' or a dictionary with 'on', not {entry!r}.")
    if unknown := [key for key in entry if key not in KEYS]:
        raise ConfigurationError(f"the key {unknown[0]!r} means nothing: there are {', '.join(KEYS)}.")
    model, happening = _read_on(entry.get("on"))
    changed = entry.get("changed", ())
    if isinstance(changed, str) or not isinstance(changed, Iterable):
        raise ConfigurationError(f"'changed' must be a list of fields, not {changed!r}.")
    if changed and happening != UPDATED:
        raise ConfigurationError(f"'changed' is for rows that are updated, and this is about rows that are {happening}.")
    if not isinstance(broadcast := entry.get("broadcast", False), bool):
        raise ConfigurationError(f"'broadcast' must be True or False, not {broadcast!r}.")
    condition = entry.get("condition")
    return ModelEvent(
        name=name,
        model=model,
        happening=happening,
        changed=tuple(_concrete_field(model, field).name for field in changed),
        condition=_function("condition", condition) if condition is not None else None,
        payload=_read_payload(model, entry.get("payload", (model._meta.pk.name,))),
        owner=_read_owner(model, entry.get("owner")),
        identifier=_read_identifier(model, entry.get("identifier")),
        broadcast=broadcast,
    )


def _read_on(on: object) -> tuple[type[Model], str]:
    label, _, happening = on.rpartition(".") if isinstance(on, str) else ("", "", "")
    if happening not in HAPPENINGS or label.count(".") != 1:
        raise ConfigurationError(f"{on!r} must be 'app_label.Model.' and one of {', '.join(HAPPENINGS)}.")
    try:
        return apps.get_model(label), happening
    except LookupError as error:
        raise ConfigurationError(f"{on!r}: {error}") from error


def _concrete_field(model: type[Model], name: str) -> "Field[Any, Any]":
    field = model._meta.get_field(name)
    if not isinstance(field, Field) or not field.concrete or field.many_to_many:
        raise ConfigurationError(f"{model._meta.label}.{name} is no column, so a save does not change it.")
    return field


def _function(key: str, path: object) -> Callable[..., Any]:
    found: Any = import_string(path) if isinstance(path, str) and "." in path else path
    if not callable(found):
        raise ConfigurationError(f"{key!r} must be the dotted path of a function, not {path!r}.")
    function: Callable[..., Any] = found
    return function


def _read_payload(model: type[Model], told: object) -> Callable[[Any], object]:
    if isinstance(told, str) or callable(told):
        return _function("payload", told)
    if not isinstance(told, Iterable):
        raise ConfigurationError(f"'payload' must be a list of fields or the dotted path of a function, not {told!r}.")
    return partial(_show, [_concrete_field(model, name) for name in told])


def _show(fields: "list[Field[Any, Any]]", instance: Model) -> dict[str, object]:
    values = {field.name: field.value_from_object(instance) for field in fields}
    return {name: value.name if isinstance(value, FieldFile) else value for name, value in values.items()}


def _read_owner(model: type[Model], told: object) -> Callable[[Any], Any]:
    """A path of attributes; without one, the model's own field ``owner``, if that is one."""
    if told is None:
        owner: Any = next((field for field in model._meta.fields if field.name == "owner"), None)
        is_one = owner is not None and owner.is_relation and owner.related_model._meta.label == owner_model()
        return partial(_follow, ["owner"] if is_one else [None])
    if not isinstance(told, str):
        raise ConfigurationError(f"'owner' must be a path of attributes, such as 'author.user', not {told!r}.")
    if told == SELF:
        return _itself
    _check_first(model, told)
    return partial(_follow, told.split("."))


def _read_identifier(model: type[Model], told: object) -> Callable[[Any], str]:
    if told is None:
        return _no_text
    if not isinstance(told, str):
        raise ConfigurationError(f"'identifier' must be a path of attributes, such as 'isbn', not {told!r}.")
    _check_first(model, told)
    return lambda instance: str(_follow(told.split("."), instance) or "")


def _check_first(model: type[Model], path: str) -> None:
    first = path.partition(".")[0]
    if not hasattr(model, first):
        raise ConfigurationError(f"{model._meta.label} has no attribute {first!r}.")


def _follow(names: Sequence[str | None], instance: Any) -> Any:
    for name in names:
        instance = getattr(instance, name) if name and instance is not None else None
    return instance


def _itself(instance: Any) -> Any:
    return instance


def _no_text(_: Any) -> str:
    return ""


# -- watching ----------------------------------------------------------------------------------------------------------


#: What ends the events that Django started with.
_ends: list[Callable[[], object]] = []


def start() -> None:
    """Fire what ``DJWEBHOOKS_MODEL_EVENTS`` says from now on, and nothing else. Raises ``ConfigurationError``."""
    model_events = read_all(conf.MODEL_EVENTS)
    while _ends:
        _ends.pop()()
    _ends.append(connect(model_events))


def connect(model_events: Iterable[ModelEvent]) -> Callable[[], object]:
    """Fire *model_events* from now on; return a function that ends it."""
    by_model: dict[type[Model], list[ModelEvent]] = defaultdict(list)
    for model_event in model_events:
        by_model[model_event.model].append(model_event)
    stack = ExitStack()
    for model, about_it in by_model.items():
        watch = Watch(about_it)
        for sender in _with_proxies(model):
            for signal, receiver in watch.receivers:
                signal.connect(receiver, sender=sender, weak=False)
                stack.callback(signal.disconnect, receiver, sender=sender)
        stack.callback(save_in_transaction(model))
    return stack.close


def _with_proxies(model: type[Model]) -> list[type[Model]]:
    """The classes of the same rows: Django's signals name the one that was used."""
    return [
        other
        for other in apps.get_models()
        if issubclass(other, model) and other._meta.concrete_model is model._meta.concrete_model
    ]


def save_in_transaction(model: type[Model]) -> Callable[[], None]:
    """Let ``model.save()`` send its signals before it commits, as ``delete()`` does; return a function that ends it."""
    save_base = model.save_base
    is_own = "save_base" in vars(model)

    @wraps(save_base)
    def save_base_in_transaction(
        self: Model,
        raw: bool = False,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        alias = using or router.db_for_write(type(self), instance=self)
        with nullcontext() if connections[alias].in_atomic_block else transaction.atomic(using=alias):
            save_base(self, raw, force_insert, force_update, alias, update_fields)

    def undo() -> None:
        if is_own:
            model.save_base = save_base  # type: ignore[method-assign]  # as it was
        else:
            delattr(model, "save_base")

    model.save_base = save_base_in_transaction  # type: ignore[method-assign]  # for this model alone
    return undo


class Watch:
    """Receives Django's signals about the rows of one model."""

    #: Where an instance keeps, while it is saved, what its row was before.
    BEFORE = "_djwebhooks_before"

    def __init__(self, model_events: list[ModelEvent]) -> None:
        self._by_happening = {kind: [event for event in model_events if event.happening == kind] for kind in HAPPENINGS}
        updated = self._by_happening[UPDATED]
        names = dict.fromkeys(name for event in updated for name in event.changed)
        self._fields = [_concrete_field(model_events[0].model, name) for name in names]

    @property
    def receivers(self) -> list[tuple[ModelSignal, Callable[..., None]]]:
        """What is to be connected, and to which signal."""
        return [(pre_save, self.before_save), (post_save, self.after_save), (post_delete, self.after_delete)]

    def before_save(
        self, instance: Model, raw: bool, using: str, update_fields: frozenset[str] | None = None, **_: object
    ) -> None:
        """Remember what the row holds, in the columns that matter, and that will be written."""
        fields = [field for field in self._fields if update_fields is None or {field.name, field.attname} & update_fields]
        is_new = instance.pk is None or (instance._state.adding and instance._meta.pk.has_default())
        if raw or not fields or is_new:
            return
        rows = type(instance)._base_manager.using(using).filter(pk=instance.pk)
        if connections[using].features.has_select_for_update:
            rows = rows.select_for_update()  # The UPDATE that follows locks it anyway; so nobody changes it in between.
        values = rows.values(*(field.attname for field in fields)).first()
        if values is not None:
            vars(instance)[self.BEFORE] = {field: values[field.attname] for field in fields}

    def after_save(self, instance: Model, created: bool, raw: bool, **_: object) -> None:
        """Fire what is about rows that are created or updated."""
        before = vars(instance).pop(self.BEFORE, {})
        if raw:
            return
        pairs = {field.name: compare(field, old, instance) for field, old in before.items()}
        changes = {name: pair for name, pair in pairs.items() if pair is not None}
        for model_event in self._by_happening[CREATED if created else UPDATED]:
            model_event.fire(instance, changes)

    def after_delete(self, instance: Model, **_: object) -> None:
        """Fire what is about rows that are deleted."""
        for model_event in self._by_happening[DELETED]:
            model_event.fire(instance, {})


def compare(field: "Field[Any, Any]", old: object, instance: Model) -> tuple[Any, Any] | None:
    """Return the *old* and the new value of a column if they differ, as the database would see it."""
    new = getattr(instance, field.attname)
    try:
        is_same = field.get_prep_value(field.to_python(new)) == field.get_prep_value(old)
    except (ValidationError, TypeError, ValueError):  # An expression, which the database alone can compute.
        is_same = False
    return None if is_same else (old, new)
