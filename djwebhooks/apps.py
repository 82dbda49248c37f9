"""The Django app."""

from django.apps import AppConfig


class DjWebhooksConfig(AppConfig):
    """Connects the engine and registers the checks; touches neither the database nor the network."""

    name = "djwebhooks"
    verbose_name = "Webhooks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Models cannot be imported before Django has loaded them all.
        from djwebhooks import checks, engines, model_events, signals

        checks.register_all()
        signals.work_written.connect(engines.ring, dispatch_uid="djwebhooks.ring")
        model_events.start()
