"""Settings of the test project: the database and the servers come from the environment."""

import json
import os

import django

DATABASE = os.environ.get("DJWEBHOOKS_TEST_DATABASE", "sqlite")

SQLITE: dict[str, object] = {
    "ENGINE": "django.db.backends.sqlite3",
    "OPTIONS": {
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
    },
}
POSTGRESQL: dict[str, object] = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": os.environ.get("PGHOST", ""),
    "PORT": os.environ.get("PGPORT", ""),
    "USER": os.environ.get("PGUSER", "postgres"),
}
MARIADB: dict[str, object] = {
    "ENGINE": "django.db.backends.mysql",
    "HOST": os.environ.get("MYSQL_UNIX_PORT", ""),
    "USER": "root",
}
SERVERS = {"sqlite": SQLITE, "postgresql": POSTGRESQL, "mariadb": MARIADB}
# A process that a test starts is told the names of the test's own databases.
NAMES = {
    "default": os.environ.get("DJWEBHOOKS_TEST_NAME", ":memory:" if DATABASE == "sqlite" else "djwebhooks"),
    "other": os.environ.get("DJWEBHOOKS_TEST_NAME_OTHER", ":memory:" if DATABASE == "sqlite" else "djwebhooks_other"),
}
DATABASES = {alias: {"NAME": name, **SERVERS[DATABASE]} for alias, name in NAMES.items()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Nothing listens on port 1: only a test that asks for the fixture `redis` has one.
RQ_QUEUES = {"default": {"URL": os.environ.get("DJWEBHOOKS_TEST_REDIS", "redis://127.0.0.1:1/0")}}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_rq",
    "django_tasks_db",
    "djwebhooks",
    "djwebhooks.inbox",
    "tests.library",
    "tests.inbox.shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
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
# Nothing is counted from one test to the next, unless a test has a cache of its own.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"

TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}

SECRET_KEY = "the key of the tests, long enough that no check complains about it"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ALLOWED_HOSTS = ["*"]
USE_TZ = True
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
TIME_ZONE = "Europe/Amsterdam"  # has daylight saving time

DJWEBHOOKS_ENGINE = "djwebhooks.engines.database.DatabaseEngine"
DJWEBHOOKS_ALLOW_HTTP = True
DJWEBHOOKS_ALLOWED_NETWORKS = ("127.0.0.0/8",)
DJWEBHOOKS_INBOX = {
    "github": {"scheme": "github", "secrets": ["a secret of the tests"]},
    "shop": {"scheme": "standard", "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "retry_schedule": [0, 0, 0]},
}

# What a test overrides for a process that it starts.
globals().update(json.loads(os.environ.get("DJWEBHOOKS_TEST_SETTINGS", "{}")))
