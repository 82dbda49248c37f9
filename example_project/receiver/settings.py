"""Settings of the receiver, which knows nothing of the guestbook but the secret. They are for development, as the guestbook's."""

import os
from pathlib import Path

from djwebhooks import signing

BASE_DIR = Path(__file__).resolve().parent.parent

# Development only: production has DEBUG off, a secret key of its own and the names of its hosts.
DEBUG = True
SECRET_KEY = "the receiver's key is public, so it keeps nothing secret from anybody"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "djwebhooks.inbox",
    "example_project.receiver",
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
ROOT_URLCONF = "example_project.receiver.urls"
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
        "NAME": os.environ.get("RECEIVER_DATABASE", BASE_DIR / "receiver.sqlite3"),
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

# Browsers send the cookies of a host to all its ports: with the guestbook's names, each site would log its user out of the other.
SESSION_COOKIE_NAME = "receiver_sessionid"
CSRF_COOKIE_NAME = "receiver_csrftoken"

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]

DJWEBHOOKS_INBOX = {
    "guestbook": {
        "scheme": "standard",
        # As the guestbook showed it once. Without it, one that nobody signs with: then everything is refused.
        "secrets": [os.environ.get("RECEIVER_SECRET") or signing.new_secret()],
        # Where to ask for what has not come: http://127.0.0.1:8000/api/feed/?target=…
        "feed_url": os.environ.get("RECEIVER_FEED", ""),
        # What is forged is kept, to be shown, and anybody could fill the table with it.
        "keep_rejected": True,
        "rate_limit": "600/minute",
    },
}
# Development only, as the guestbook, whose feed is asked, is on this machine and has no certificate.
DJWEBHOOKS_ALLOW_HTTP = True
DJWEBHOOKS_ALLOWED_NETWORKS = ("127.0.0.0/8",)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"djwebhooks": {"handlers": ["console"], "level": "INFO"}},
}
