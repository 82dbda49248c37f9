"""drf-hooks: three threads in the application's own process."""

from collections.abc import Sequence

from benchmarks.systems.base import System


class DrfHooks(System):
    """drf-hooks as it comes: no worker, no record, no time-out; what waits is in memory."""

    name = "drf-hooks"
    requirements = ("drf-hooks==0.1.5", "psycopg[binary]>=3.2.2")
    pace = 800
    # It is for Django 4.2, which does not know the options that SQLite needs.
    databases = ("postgresql",)
    apps = ("rest_framework", "drf_hooks")
    settings = {"HOOK_EVENTS": {"note.saved": "notes.Note.created+"}}
    is_recording = False

    def subscribe(self, urls: Sequence[str]) -> None:
        from django.contrib.auth.models import User
        from drf_hooks.models import Hook

        user, _ = User.objects.get_or_create(username="owner")
        Hook.objects.bulk_create(Hook(user=user, event="note.saved", target=url) for url in urls)
