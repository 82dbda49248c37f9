"""What an event is about: model instances, as digests by which the event is found again when their data is to be erased."""

import hashlib
from collections.abc import Iterable

from django.db.models import Model
from django.db.models.expressions import DatabaseDefault

#: Characters of a digest: 128 bits of SHA-256.
DIGEST_LENGTH = 32


def has_key(instance: Model) -> bool:
    """Whether *instance* has a primary key: not before it is saved, if the database makes that, and not after its deletion."""
    return not (instance.pk is None or isinstance(instance.pk, DatabaseDefault))


def digests_of(instance: Model) -> list[str]:
    """Return the digests of a saved *instance*: its own first, then those of its rows in the tables of its parents."""
    own = instance._meta.concrete_model or type(instance)
    return [digest(instance, model) for model in (own, *own._meta.get_parent_list())]


def digest(instance: Model, model: type[Model]) -> str:
    """Return the digest of the row that *instance* has in the table of *model*, its own or a parent's."""
    key = model._meta.pk
    # Whoever names it later may have its primary key as text.
    named = f"{model._meta.label_lower}:{key.to_python(getattr(instance, key.attname))}"
    return hashlib.sha256(named.encode()).hexdigest()[:DIGEST_LENGTH]


def join_digests(instances: Iterable[Model], owner: Model | None) -> str:
    """Return what an event's row keeps of its subjects. The *owner* is left out: the row names them."""
    digests = dict.fromkeys(one for instance in instances for one in digests_of(instance))
    if owner is not None:
        digests.pop(digests_of(owner)[0], None)
    return " ".join(digests)


def find_instances(values: Iterable[object]) -> list[Model]:
    """Return the model instances that have a key among *values*, also those inside lists, tuples, sets and dictionaries."""
    found: list[Model] = []
    seen: set[int] = set()
    todo: list[object] = list(values)
    while todo:
        value = todo.pop()
        if isinstance(value, Model):
            if has_key(value):
                found.append(value)
        elif isinstance(value, dict | list | tuple | set | frozenset) and id(value) not in seen:
            seen.add(id(value))  # It may contain itself.
            todo += [*value, *value.values()] if isinstance(value, dict) else value
    return found
