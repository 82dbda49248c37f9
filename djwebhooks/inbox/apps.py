"""The Django app."""

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class InboxConfig(AppConfig):
    """Registers the checks and finds the handlers in each app's ``webhooks.py``; touches neither the database nor the network."""

    name = "djwebhooks.inbox"
    label = "djwebhooks_inbox"
    verbose_name = "Webhooks received"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Models cannot be imported before Django has loaded them all.
        from djwebhooks.inbox import checks

        checks.register_all()
        autodiscover_modules("webhooks")
