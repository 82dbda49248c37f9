"""Events about the application's own rows, fired when these are saved or deleted, without a line of code."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist, ObjectDoesNotExist
from django.db import connections, router, transaction
from django.db.models import Field, Model
from django.db.models.expressions import DatabaseDefault
from django.db.models.signals import ModelSignal, post_delete, post_save, pre_delete
from django.utils.module_loading import import_string

from djwebhooks.conf import conf
from djwebhooks.events import Coalesce, check_coalesce, fire
from djwebhooks.exceptions import ConfigurationError, DjWebhooksError
from djwebhooks.names import check_name
from djwebhooks.owners import owner_model

#: What can become of a row.
CREATED, UPDATED, DELETED = HAPPENINGS = ("created", "updated", "deleted")
#: What an entry of ``DJWEBHOOKS_MODEL_EVENTS`` may say.
KEYS = ("on", "changed", "condition", "payload", "owner", "identifier", "broadcast", "coalesce")
#: An owner that is the row itself.
SELF = "self"

#: The values of fields, former and present, by name.
Changes = Mapping[str, tuple[Any, Any]]
#: What a row has, by the names of its columns.
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """An entry of ``DJWEBHOOKS_MODEL_EVENTS``, read."""

    name: str
    model: type[Model]
    happening: str
    #: The fields of which one must have changed; none means that any save will do.
    changed: tuple[str, ...]
    condition: Callable[[Any, Changes], bool] | None
    #: Of which the row's own values are shown, or lead to the owner or the identifier.
    columns: "tuple[Field[Any, Any], ...]"
    payload: Callable[[Any, Row], object]
    owner: "Path | None"
    identifier: "Path | None"
    broadcast: bool
    coalesce: Coalesce
    #: Whether nobody has said whose it is, or for whom.
    has_no_receivers: bool

    def prepare(self, instance: Model, changes: Changes) -> Callable[[], object] | None:
        """Return what fires the event about *instance* as it is now, if what the event asks for is so."""
        if self.changed and not changes.keys() & set(self.changed):
            return None
        if self.condition is not None and not self.condition(instance, changes):
            return None
        row = read_row(instance, self.columns) or {}
        owner, identifier = (path and path.follow(instance, row) for path in (self.owner, self.identifier))
        return partial(
            fire,
            self.name,
            self.payload(instance, row),
            owner=owner,
            identifier="" if identifier is None else str(identifier),
            ordering_key=f"{self.model._meta.label_lower}.{find_key(instance, self.model)}",
            broadcast=self.broadcast,
            coalesce=self.coalesce,
            subjects=[instance],
        )


@dataclass(frozen=True, slots=True)
class Path:
    """A path of attributes from an instance; without any, the instance itself."""

    names: Sequence[str]
    #: The field that the first of them is, if that has a column.
    column: Any

    def follow(self, instance: Model, row: Row) -> Any:
        """Return what is at its end, or ``None`` where there is none.

        A column counts as *row* has it, whatever the instance was assigned and did not save.
        """
        try:
            found = self._start(instance, row)
            for name in self.names[1:]:
                found = getattr(found, name) if found is not None else None
        except ObjectDoesNotExist:  # The other end of a one-to-one relation, or of a key that nothing constrains.
            return None
        return found

    def _start(self, instance: Model, row: Row) -> Any:
        if not self.names:
            return instance
        name, column = self.names[0], self.column
        if column is None or column.attname not in row:
            return getattr(instance, name)
        key = row[column.attname]
        if key is None or not column.is_relation or name == column.attname:
            return key
        if vars(instance).get(column.attname) == key:
            return getattr(instance, name)
        return column.related_model._base_manager.using(instance._state.db).get(**{column.target_field.name: key})


# -- reading the setting -----------------------------------------------------------------------------------------------


def read_all(told: object) -> list[ModelEvent]:
    """Read ``DJWEBHOOKS_MODEL_EVENTS``. Raises ``ConfigurationError`` for what cannot be."""
    if not isinstance(told, Mapping):
        raise ConfigurationError(f"DJWEBHOOKS_MODEL_EVENTS must be a dictionary of events, not {told!r}.")
    return [read(name, entry) for name, entry in told.items()]


def read(name: str, told: object) -> ModelEvent:
    """Read what is *told* of the event *name*. Raises ``ConfigurationError``."""
    try:
        check_name(name)
        return _read(name, {"on": told} if isinstance(told, str) else told)
    except (DjWebhooksError, ImportError, FieldDoesNotExist) as error:
        raise ConfigurationError(f"DJWEBHOOKS_MODEL_EVENTS[{name!r}]: {error}") from error


def _read(name: str, entry: object) -> ModelEvent:
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"write 'app_label.Model.created' or a dictionary with 'on', not {entry!r}.")
    if unknown := [key for key in entry if key not in KEYS]:
        raise ConfigurationError(f"the key {unknown[0]!r} means nothing: there are {', '.join(KEYS)}.")
    if "on" not in entry:
        raise ConfigurationError("'on' is missing: it says what happens to which rows, such as 'app_label.Model.created'.")
    model, happening = _read_on(entry["on"])
    changed = entry.get("changed", ())
    if isinstance(changed, str) or not isinstance(changed, Iterable):
        raise ConfigurationError(f"'changed' must be a list of fields, not {changed!r}.")
    if changed and happening != UPDATED:
        raise ConfigurationError(f"'changed' is for rows that are updated, and this is about rows that are {happening}.")
    if not isinstance(broadcast := entry.get("broadcast", False), bool):
        raise ConfigurationError(f"'broadcast' must be True or False, not {broadcast!r}.")
    condition = entry.get("condition")
    shown, payload = _read_payload(model, entry.get("payload", [field.name for field in model._meta.pk_fields]))
    owner = _read_owner(model, entry.get("owner", find_own_owner(model)))
    identifier = _read_identifier(model, entry.get("identifier"))
    starts = [path.column for path in (owner, identifier) if path is not None and path.column is not None]
    return ModelEvent(
        name=name,
        model=model,
        happening=happening,
        changed=tuple(_concrete_field(model, field).name for field in changed),
        condition=_function("condition", condition) if condition is not None else None,
        columns=tuple(dict.fromkeys([*shown, *starts])),
        payload=payload,
        owner=owner,
        identifier=identifier,
        broadcast=broadcast,
        coalesce=check_coalesce(entry.get("coalesce"), ordering_key=name),
        has_no_receivers=not broadcast and "owner" not in entry and find_own_owner(model) is None,
    )


def _read_on(on: object) -> tuple[type[Model], str]:
    label, _, happening = on.rpartition(".") if isinstance(on, str) else ("", "", "")
    if happening not in HAPPENINGS or label.count(".") != 1:
        raise ConfigurationError(f"{on!r} must be 'app_label.Model.' and one of {', '.join(HAPPENINGS)}.")
    try:
        model = apps.get_model(label)
    except LookupError as error:
        raise ConfigurationError(f"{on!r}: {error}") from error
    if model._meta.swapped or model._meta.auto_created:
        raise ConfigurationError(f"{on!r}: Django tells nobody about its rows, as it is swapped out or made by a relation.")
    return model, happening


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


def _read_payload(model: type[Model], told: object) -> "tuple[list[Field[Any, Any]], Callable[[Any, Row], object]]":
    """Return the fields that a payload shows, and what makes it."""
    if isinstance(told, str) or callable(told):
        function = _function("payload", told)
        return [], lambda instance, row: function(instance)
    if not isinstance(told, Iterable):
        raise ConfigurationError(f"'payload' must be a list of fields or the dotted path of a function, not {told!r}.")
    fields = [_concrete_field(model, name) for name in told]
    return fields, lambda instance, row: {field.name: row.get(field.attname) for field in fields}


def read_row(instance: Model, fields: "Iterable[Field[Any, Any]]") -> dict[str, Any] | None:
    """Return the values of these columns of the instance's row; nothing if there is no row."""
    names = [field.attname for field in fields]
    if names == [instance._meta.pk.attname]:
        return {names[0]: instance.pk}
    return type(instance)._base_manager.using(instance._state.db).filter(pk=instance.pk).values(*names).first() if names else {}


def find_key(instance: Model, model: type[Model]) -> Any:
    """Return the key of the row that *instance* has in the table of *model*: a child of several parents has one of each."""
    return getattr(instance, model._meta.pk.attname)


def _read_owner(model: type[Model], told: object) -> Path | None:
    if told is None:
        return None
    if not isinstance(told, str):
        raise ConfigurationError(f"'owner' must be a path of attributes, such as 'author.user', or None, not {told!r}.")
    if told == SELF:
        return Path((), None)
    path, end = _read_path(model, told)
    if end is not None and not issubclass(end, apps.get_model(owner_model())):
        raise ConfigurationError(f"the owner {told!r} is a {end._meta.label}, and targets belong to {owner_model()}.")
    return path


def find_own_owner(model: type[Model]) -> str | None:
    """Return ``"owner"`` if *model* has a field of this name that refers to the owner model."""
    owner: Any = next((field for field in model._meta.fields if field.name == "owner"), None)
    is_one = owner is not None and owner.is_relation and owner.related_model._meta.label == owner_model()
    return "owner" if is_one else None


def _read_identifier(model: type[Model], told: object) -> Path | None:
    if told is None:
        return None
    if not isinstance(told, str):
        raise ConfigurationError(f"'identifier' must be a path of attributes, such as 'isbn', not {told!r}.")
    return _read_path(model, told)[0]


def _read_path(model: type[Model], told: str) -> tuple[Path, type[Model] | None]:
    """Return a path of attributes, and the model that it leads to, as far as fields tell. Raises ``ConfigurationError``."""
    names = told.split(".")
    column = next((field for field in model._meta.concrete_fields if names[0] in (field.name, field.attname)), None)
    return Path(names, column), _find_end(model, names)


def _find_end(model: type[Model], names: Iterable[str]) -> type[Model] | None:
    for name in names:
        try:
            field: Any = model._meta.get_field(name)
        except FieldDoesNotExist:
            if not hasattr(model, name):
                raise ConfigurationError(f"{model._meta.label} has no attribute {name!r}.") from None
            return None  # Whatever a property gives.
        if not field.is_relation or not isinstance(field.related_model, type):
            return None
        model = field.related_model
    return model


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
        watch = Watch(model, about_it)
        for signal, receiver, senders in watch.receivers:
            for sender in senders:
                signal.connect(receiver, sender=sender, weak=False)
                stack.callback(signal.disconnect, receiver, sender=sender)
        stack.callback(wrap_saving(model, watch))
    return stack.close


def wrap_saving(model: type[Model], watch: "Watch") -> Callable[[], None]:
    """Have *watch* look at each save of *model*, in one transaction with it; return a function that ends it.

    Django commits a row of one table before it sends ``post_save``, unless somebody has opened a transaction.
    """
    own = vars(model).get("save_base")

    @wraps(model.save_base)
    def save_base(
        self: Model,
        raw: bool = False,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        alias = using or router.db_for_write(type(self), instance=self)
        parent: Any = super(model, self)
        saves = partial(own, self) if own is not None else parent.save_base
        with nullcontext() if connections[alias].in_atomic_block else transaction.atomic(using=alias):
            if raw:
                saves(raw, force_insert, force_update, alias, update_fields)
                return
            with watch.saving(self, alias, is_update=force_update or update_fields is not None):
                saves(raw, force_insert, force_update, alias, update_fields)

    def undo() -> None:
        if own is not None:
            model.save_base = own  # type: ignore[method-assign]  # puts back the model's own
        else:
            delattr(model, "save_base")

    model.save_base = save_base  # type: ignore[method-assign]  # for this model, and those that derive from it
    return undo


@dataclass(slots=True)
class Save:
    """A save that is going on."""

    #: What the row held, by the names of its columns; nothing if there was none, or if nobody asks.
    before: Mapping[str, Any] | None
    #: Whether it made the row; unknown until Django says so.
    is_creation: bool | None = None
    #: What is to be fired after this: saves of the same instance that began, and ended, within this one.
    later: list[Callable[[], object]] = field(default_factory=list)


class Uncopied(list[Any]):
    """What an instance keeps to itself: its copies, be they deep or pickled, begin with nothing."""

    def __reduce__(self) -> tuple[type[list[Any]], tuple[()]]:
        return list, ()


class Watch:
    """Looks at what becomes of one model's rows."""

    def __init__(self, model: type[Model], model_events: Sequence[ModelEvent]) -> None:
        self._model = model
        self._by_happening = {kind: [event for event in model_events if event.happening == kind] for kind in HAPPENINGS}
        self._columns = model._meta.concrete_fields
        self._compares = any(event.changed or event.condition for event in self._by_happening[UPDATED])
        #: Where an instance keeps its saves, and what is fired when it is deleted.
        self._saves, self._deletion = (f"_djwebhooks_{what}_{id(self)}" for what in ("saves", "deletion"))

    @property
    def receivers(self) -> list[tuple[ModelSignal, Callable[..., None], list[type[Model]]]]:
        """What is to be connected to which signal, for which classes.

        A row of a child in a table of its own is a row of its parents; of its deletion Django tells at each of these tables.
        """
        classes = [other for other in apps.get_models() if issubclass(other, self._model)]
        same = [other for other in classes if other._meta.concrete_model is self._model._meta.concrete_model]
        return [
            (post_save, self.see_save, classes),
            (pre_delete, self.foresee_deletion, same),
            (post_delete, self.see_deletion, same),
        ]

    # -- saves ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def saving(self, instance: Model, using: str, *, is_update: bool) -> Iterator[None]:
        """Fire what a save of *instance* asks for when it is done."""
        saves: list[Save] = vars(instance).get(self._saves) or Uncopied()
        vars(instance)[self._saves] = saves
        save = Save(self._read_before(instance, using, is_update=is_update))
        saves.append(save)
        try:
            yield
            fires = self._prepare(instance, save) + save.later
        finally:
            saves.pop()
            if not saves:
                del vars(instance)[self._saves]
        if saves:
            # The one around this has its say first.
            saves[-1].later += fires
        else:
            for fire_it in fires:
                fire_it()

    def see_save(self, instance: Model, created: bool, **_: object) -> None:
        """Django says what the save was that is going on; there is none for fixtures."""
        if saves := vars(instance).get(self._saves):
            saves[-1].is_creation = created

    def _read_before(self, instance: Model, using: str, *, is_update: bool) -> Mapping[str, Any] | None:
        pk = instance._meta.pk
        is_surely_new = instance._state.adding and (pk.has_default() or pk.has_db_default()) and not is_update
        key = find_key(instance, self._model)
        if not self._compares or key is None or isinstance(key, DatabaseDefault) or is_surely_new:
            return None
        rows = self._model._base_manager.using(using).filter(pk=key)
        features = connections[using].features
        if features.has_select_for_update:
            # As the UPDATE that follows does; nobody changes the row in between, and references to it stay possible.
            rows = rows.select_for_update(no_key=features.has_select_for_no_key_update)
        return rows.values(*(column.attname for column in self._columns)).first()

    def _prepare(self, instance: Model, save: Save) -> list[Callable[[], object]]:
        if save.is_creation is None:
            return []
        changes = {} if save.is_creation or save.before is None else self._find_changes(instance, save.before)
        happened = self._by_happening[CREATED if save.is_creation else UPDATED]
        return [ready for event in happened if (ready := event.prepare(instance, changes)) is not None]

    def _find_changes(self, instance: Model, before: Mapping[str, Any]) -> Changes:
        after = read_row(instance, self._columns) or before
        pairs = {column.name: (before[column.attname], after[column.attname]) for column in self._columns}
        return {name: (old, new) for name, (old, new) in pairs.items() if old != new}

    # -- deletions ------------------------------------------------------------------------------------------------------

    def foresee_deletion(self, instance: Model, **_: object) -> None:
        """Prepare what is to be fired while the row, and what refers to it, can be read."""
        prepared = [event.prepare(instance, {}) for event in self._by_happening[DELETED]]
        vars(instance)[self._deletion] = Uncopied(ready for ready in prepared if ready is not None)

    def see_deletion(self, instance: Model, **_: object) -> None:
        """Fire it."""
        for fire_it in vars(instance).pop(self._deletion, ()):
            fire_it()
