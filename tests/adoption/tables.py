"""The tables of other packages, as their migrations make them; the column of a user is one without a constraint and index.

Columns, keys and unique constraints were compared with the tables that the packages themselves made on SQLite, and each
package's own table was adopted there: django-webhook 0.0.15, django-webhook2 0.11.0 and drf-hooks 0.1.5 on Django 5.2,
django-rest-hooks 1.5.0 on Django 3.2, and dj-webhooks 0.2.1, which has models and no migrations, on Django 2.2. What
dj-webhooks has in its repository was never released, and is as its source says.
"""

from typing import Any
from uuid import uuid4

from django.apps.registry import Apps
from django.db import connection, models
from django.utils import timezone

registry = Apps()

URL = "https://shop.example/hook"
#: As ``secrets.token_urlsafe()`` makes them.
TOKEN = "fZ3c0uNcLZ0OwzMZ8dTwTnmJx1qPzvWqk3s-Xx1Yb2E"


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


class CustomHook(OldRow):
    """The model of one's own that the README of django-rest-hooks shows."""

    created = models.DateTimeField(auto_now_add=True)
    updated = models.DateTimeField(auto_now=True)
    event = models.CharField(max_length=64, db_index=True)
    target = models.URLField(max_length=255)
    user_id = models.IntegerField()
    is_active = models.BooleanField(default=True)

    class Meta:
        apps = registry
        app_label = "bookstore"
        db_table = "bookstore_customhook"


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


class Webhook(OldRow):
    """django-webhook 0.0.15, and django-webhook2 0.11.0."""

    created = models.DateTimeField(auto_now_add=True)
    url = models.URLField()
    active = models.BooleanField(default=True)
    uuid = models.UUIDField(default=uuid4, editable=False)
    modified = models.DateTimeField(auto_now=True)

    class Meta:
        apps = registry
        app_label = "django_webhook"
        db_table = "django_webhook_webhook"


class WebhookTopic(OldRow):
    name = models.CharField(max_length=250, unique=True)

    class Meta:
        apps = registry
        app_label = "django_webhook"
        db_table = "django_webhook_webhooktopic"


class WebhookTopics(OldRow):
    """What Django makes of ``Webhook.topics``."""

    webhook = models.ForeignKey(Webhook, models.CASCADE)
    webhooktopic = models.ForeignKey(WebhookTopic, models.CASCADE)

    class Meta:
        apps = registry
        app_label = "django_webhook"
        db_table = "django_webhook_webhook_topics"
        unique_together = (("webhook", "webhooktopic"),)


class WebhookSecret(OldRow):
    token = models.CharField(max_length=100)
    webhook = models.ForeignKey(Webhook, models.CASCADE)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        apps = registry
        app_label = "django_webhook"
        db_table = "django_webhook_webhooksecret"


TABLES: tuple[type[models.Model], ...] = (
    *(DjWebhooksTarget, ReleasedDjWebhooksTarget, RestHook, CustomHook, DrfHook),
    *(Webhook, WebhookTopic, WebhookTopics, WebhookSecret),
)


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


def make_webhook(*topics: str, url: str = URL, tokens: tuple[str, ...] = (TOKEN,), active: bool = True) -> Webhook:
    webhook = Webhook.objects.create(url=url, active=active)
    for name in topics:
        topic, _ = WebhookTopic.objects.get_or_create(name=name)
        WebhookTopics.objects.create(webhook=webhook, webhooktopic=topic)
    for token in tokens:
        WebhookSecret.objects.create(webhook=webhook, token=token)
    return webhook
