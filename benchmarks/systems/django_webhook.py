"""django-webhook and django-webhook2: a Celery task per delivery, on signals of models."""

from collections.abc import Sequence

from benchmarks.systems.base import CELERY, GEVENT, PREFORK, System


class DjangoWebhook(System):
    """django-webhook on Celery's own pool. It has no time-out."""

    name = "django-webhook"
    requirements: Sequence[str] = ("django-webhook==0.0.15", "celery[redis]==5.*", "psycopg[binary]>=3.2.2")
    pace = 120
    apps = ("django_webhook",)
    settings = {"DJANGO_WEBHOOK": {"MODELS": ["notes.Note"]}}
    imports = ("benchmarks.celery_app",)
    worker = (*CELERY, *PREFORK)

    def subscribe(self, urls: Sequence[str]) -> None:
        from django_webhook.models import Webhook, WebhookSecret, WebhookTopic

        topic, _ = WebhookTopic.objects.get_or_create(name="notes.Note/create")
        for url in urls:
            webhook = Webhook.objects.create(url=url)
            webhook.topics.add(topic)
            WebhookSecret.objects.create(webhook=webhook, token="only for benchmarks")

    def count_recorded(self) -> int:
        from django_webhook.models import WebhookEvent

        return int(WebhookEvent.objects.filter(status="SUCCESS").count())


class DjangoWebhookOnGevent(DjangoWebhook):
    """The same with a hundred greenlets, each with a connection of its own as long as a task lasts."""

    name = "django-webhook-gevent"
    requirements = (*DjangoWebhook.requirements, "gevent>=24.11")
    database_options = {"CONN_MAX_AGE": 0}
    worker = (*CELERY, *GEVENT)


class DjangoWebhook2(DjangoWebhook):
    """django-webhook2, its successor, which has the same name for importing it."""

    name = "django-webhook2"
    requirements = ("django-webhook2==0.11.0", *DjangoWebhook.requirements[1:])
    settings = {"DJANGO_WEBHOOK": {"MODELS": ["notes.Note"], "ADMIN_SITE": None}}
