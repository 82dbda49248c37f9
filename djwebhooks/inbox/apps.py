"""The Django app."""

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class InboxConfig(AppConfig):
    """Registers the checks, connects the bell and imports each app's ``webhooks.py``; touches neither database nor network."""

    name = "djwebhooks.inbox"
    label = "djwebhooks_inbox"
    verbose_name = "Webhooks received"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Models cannot be imported before Django has loaded them all.
        from djwebhooks.inbox import bell, checks, models

        checks.register_all()
        models.messages_due.connect(bell.ring, dispatch_uid="djwebhooks.inbox.ring")
        autodiscover_modules("webhooks")
