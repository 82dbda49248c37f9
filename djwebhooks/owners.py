"""The model that owns targets: which it is, and which migration creates it."""

import pkgutil
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import migrations
from django.db.migrations.loader import MigrationLoader
from django.utils.functional import LazyObject

from djwebhooks.conf import conf


def owner_model() -> str:
    """Return the owner model's label, such as ``"auth.User"``."""
    return conf.OWNER_MODEL or str(settings.AUTH_USER_MODEL)


def owner_migration() -> tuple[str, str]:
    """Return the migration that must run before ours: the one that creates the owner model.

    It need not be the first of its app, as Django's own ``swappable_dependency`` takes for granted.
    """
    app_label, model_name = owner_model().split(".")
    module_name, _ = MigrationLoader.migrations_module(app_label)
    if module_name is None or find_spec(module_name) is None:  # An app without migrations.
        return app_label, "__first__"
    module = import_module(module_name)
    names = sorted(name for _, name, is_package in pkgutil.iter_modules(module.__path__) if not is_package)
    for name in names:
        migration = getattr(import_module(f"{module_name}.{name}"), "Migration", None)
        if migration is not None and any(_creates(operation, model_name) for operation in migration.operations):
            return app_label, name
    return app_label, "__first__"


def _creates(operation: migrations.operations.base.Operation, model_name: str) -> bool:
    match operation:
        case migrations.CreateModel():
            return operation.name.lower() == model_name.lower()
        case migrations.RenameModel():
            return operation.new_name.lower() == model_name.lower()
        case migrations.SeparateDatabaseAndState():
            return any(_creates(inner, model_name) for inner in operation.state_operations)
        case _:
            return False


def check_owner(owner: Any) -> Any:
    """Return the owner's primary key. Raises ``TypeError`` for what is not a saved owner."""
    if owner is None:
        return None
    model = apps.get_model(owner_model())
    kind = owner.__class__ if isinstance(owner, LazyObject) else type(owner)
    if not issubclass(kind, model):
        setting = "DJWEBHOOKS_OWNER_MODEL" if conf.OWNER_MODEL else "AUTH_USER_MODEL"
        raise TypeError(f"owner must be {owner_model()} (as {setting} says) or None, not {kind.__name__}.")
    if owner.pk is None:
        raise TypeError("owner must be saved before: it has no primary key yet.")
    return owner.pk


def name_of_owner(owner: object) -> str | None:
    """Return what a payload shows as the owner: ``DJWEBHOOKS_OWNER_FIELD``, else the user name, else the primary key."""
    if owner is None:
        return None
    if conf.OWNER_FIELD:
        return str(getattr(owner, conf.OWNER_FIELD))
    get_username = getattr(owner, "get_username", None)
    return str(get_username() if get_username else getattr(owner, "pk", owner))
