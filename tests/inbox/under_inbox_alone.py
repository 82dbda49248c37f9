"""Run by ``test_alone`` in a project that has no other part of djwebhooks: prints what it finds."""

import json
import sys
from io import StringIO

import django
from django.conf import settings

SECRET = "a secret of the tests"

settings.configure(
    SECRET_KEY="x" * 50,
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "djwebhooks.inbox",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    ROOT_URLCONF="tests.inbox.under_inbox_alone_urls",
    STATIC_URL="static/",
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
    DJWEBHOOKS_INBOX={"github": {"scheme": "github", "secrets": [SECRET]}},
)
django.setup()


def run() -> None:
    """Migrate, receive, work, look at the admin, and clean up."""
    from django.apps import apps
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.test import Client

    from djwebhooks.inbox.handlers import receive
    from djwebhooks.inbox.models import Message
    from djwebhooks.inbox.testing import signed

    seen: list[str] = []
    receive("github", event="push")(lambda message: seen.append(message.json()["ref"]))
    output = StringIO()
    call_command("check", fail_level="WARNING", stdout=output)
    call_command("migrate", verbosity=0)
    answer = Client().post(**signed("github", {"ref": "main"}, event="push"))
    call_command("webhooks", "inbox", "--burst", stdout=output)
    call_command("webhooks", "prune", stdout=output)
    call_command("webhooks", "stats", stdout=output)
    call_command("webhooks", "stats", "--format", "json", stdout=StringIO())
    call_command("webhooks", "erase", "--saying", "nobody", "--dry-run", stdout=output)
    message = Message.objects.get()
    staff = Client()
    staff.force_login(User.objects.create_superuser("staff"))
    place = "/admin/djwebhooks_inbox/message/"
    pages = [staff.get(place), staff.get(f"{place}{message.pk}/change/"), staff.post(f"{place}{message.pk}/act/replay/")]
    found = {
        "labels": [config.label for config in apps.get_app_configs() if config.name.startswith("djwebhooks")],
        "models": [name for name in sys.modules if name.startswith(("djwebhooks.models", "djwebhooks.worker"))],
        "status": answer.status_code,
        "seen": seen,
        "message": message.status,
        "pages": [page.status_code for page in pages],
        "output": output.getvalue().splitlines(),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    run()
