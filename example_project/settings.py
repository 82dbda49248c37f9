"""Settings of the Retro Guestbook. They are for development: every line that is not for production says so."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent

# Development only: production has DEBUG off, a secret key of its own and the names of its hosts.
DEBUG = True
SECRET_KEY = "the guestbook's key is public, so it keeps nothing secret from anybody"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_rq",
    "djwebhooks",
    "example_project.guestbook",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("GUESTBOOK_DATABASE", BASE_DIR / "guestbook.sqlite3"),
        # A comment and its webhook are saved together, or not at all.
        "ATOMIC_REQUESTS": True,
        "OPTIONS": {
            # Readers do not wait for the writer, and writers wait for each other instead of failing.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-gb"
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "webhooks"
LOGOUT_REDIRECT_URL = "guestbook"

# The queue that wakes the worker: `manage.py rqworker default --with-scheduler`.
DJWEBHOOKS_QUEUE = os.environ.get("GUESTBOOK_QUEUE", "default")
RQ_QUEUES = {DJWEBHOOKS_QUEUE: {"URL": os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")}}

# The receiver that the page *Webhooks* suggests; none if it is empty.
GUESTBOOK_RECEIVER = os.environ.get("GUESTBOOK_RECEIVER", "http://127.0.0.1:8001/webhooks/guestbook/")

DJWEBHOOKS_EVENTS = {"guestbook.comment.created": {"description": "Somebody left a comment in the guestbook."}}
# Short pauses, as whoever plays with the guestbook wants to see a retry. The default goes on for three days.
DJWEBHOOKS_RETRY_SCHEDULE = (5, 15, 60, 300)
# Development only: the receiver is on this machine and has no certificate. In production both lines go, or everybody who
# may add a webhook could have your server call whatever listens on its own loopback interface.
DJWEBHOOKS_ALLOW_HTTP = True
DJWEBHOOKS_ALLOWED_NETWORKS = ("127.0.0.0/8",)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"djwebhooks": {"handlers": ["console"], "level": "INFO"}},
}
