"""The tables of other packages, as their migrations make them; the column of a user is one without a constraint."""

from typing import Any

from django.apps.registry import Apps
from django.db import connection, models
from django.utils import timezone

registry = Apps()


class OldRow(models.Model):
    id = models.AutoField(primary_key=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"row {self.pk}"


class ReleasedDjWebhooksTarget(OldRow):
    """dj-webhooks 0.2.1, its last release."""

    created = models.DateTimeField(default=timezone.now)
    modified = models.DateTimeField(default=timezone.now)
    owner_id = models.IntegerField()
    event = models.CharField(max_length=255)
    target_url = models.URLField(max_length=255)
    header_content_type = models.CharField(max_length=255, default="application/json")

    class Meta:
        apps = registry
        app_label = "djwebhooks"
        db_table = "webhooks_of_0_2_1"


class DjWebhooksTarget(OldRow):
    """dj-webhooks, as its repository has it."""

    created = models.DateTimeField(default=timezone.now)
    modified = models.DateTimeField(default=timezone.now)
    owner_id = models.IntegerField()
    event = models.CharField(max_length=255)
    identifier = models.CharField(max_length=255, blank=True)
    target_url = models.URLField(max_length=255)
    header_content_type = models.CharField(max_length=255, default="application/json")

    class Meta:
        apps = registry
        app_label = "djwebhooks"
        db_table = "djwebhooks_webhooktarget"


class RestHook(OldRow):
    """django-rest-hooks 1.5.0."""

    created = models.DateTimeField(auto_now_add=True)
    updated = models.DateTimeField(auto_now=True)
    event = models.CharField(max_length=64, db_index=True)
    target = models.URLField(max_length=255)
    user_id = models.IntegerField()

    class Meta:
        apps = registry
        app_label = "rest_hooks"
        db_table = "rest_hooks_hook"


class DrfHook(OldRow):
    """drf-hooks 0.1.5."""

    created = models.DateTimeField(auto_now_add=True)
    updated = models.DateTimeField(auto_now=True)
    event = models.CharField(max_length=64, db_index=True)
    target = models.URLField(max_length=255)
    headers = models.JSONField()
    user_id = models.IntegerField()

    class Meta:
        apps = registry
        app_label = "drf_hooks"
        db_table = "drf_hooks_hook"


TABLES: tuple[type[models.Model], ...] = (DjWebhooksTarget, ReleasedDjWebhooksTarget, RestHook, DrfHook)


def make_tables() -> None:
    with connection.schema_editor() as editor:
        for model in TABLES:
            editor.create_model(model)


def drop_tables() -> None:
    with connection.schema_editor() as editor:
        for model in reversed(TABLES):
            editor.delete_model(model)


def make_row(model: Any, **fields: Any) -> Any:
    return model.objects.create(**fields)
