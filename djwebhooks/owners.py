"""The model that owns targets: which it is, which migration creates it, and for which owner a request is made."""

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import migrations
from django.db.migrations.loader import MigrationLoader
from django.db.models.expressions import DatabaseDefault
from django.utils.functional import LazyObject
from django.utils.module_loading import import_string

from djwebhooks.conf import conf
from djwebhooks.exceptions import ConfigurationError


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
    if owner.pk is None or isinstance(owner.pk, DatabaseDefault):
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


def find_owner(request: Any, kwargs: Mapping[str, Any]) -> Any:
    """Return the owner that an authenticated *request* acts for, one of Django's or of REST framework's.

    *kwargs* are those of the URL that the API or the portal is included at. Raises ``PermissionDenied`` when there is no owner,
    or when the function of ``DJWEBHOOKS_REQUEST_OWNER`` does, and ``ConfigurationError`` when what it returns cannot own targets.
    """
    owner = import_string(conf.REQUEST_OWNER)(request, **kwargs) if conf.REQUEST_OWNER else request.user
    # The rows of no owner are the system's, which nobody sees here.
    if owner is None:
        raise PermissionDenied("There is nobody here whose webhooks you may see.")
    try:
        check_owner(owner)
    except TypeError as error:
        raise ConfigurationError(
            f"DJWEBHOOKS_REQUEST_OWNER is {conf.REQUEST_OWNER!r}, which does not give an owner of webhooks: {error} Let it be a "
            "function of (request, **url_kwargs) that returns one, or None."
        ) from error
    return owner
