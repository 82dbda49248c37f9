"""A project with the notes application and the one system that the environment names, on the database that it names."""

import os
from typing import Any

from benchmarks.systems import SYSTEMS

SYSTEM = SYSTEMS[os.environ.get("BENCHMARK_SYSTEM", "djwebhooks-requests")]

DATABASES: dict[str, dict[str, Any]] = {
    "sqlite": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("BENCHMARK_SQLITE", ""),
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    },
    "postgresql": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("BENCHMARK_NAME", "postgres"),
        "HOST": os.environ.get("PGHOST", ""),
        "PORT": os.environ.get("PGPORT", ""),
        "USER": os.environ.get("PGUSER", "postgres"),
    },
}
DATABASES = {"default": {**DATABASES[os.environ.get("BENCHMARK_DATABASE", "sqlite")], **SYSTEM.database_options}}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", *SYSTEM.apps, "benchmarks.notes"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECRET_KEY = "only for benchmarks"
USE_TZ = True
REDIS_URL = os.environ.get("REDIS_URL", "")
CELERY_BROKER_URL = REDIS_URL
RQ_QUEUES = {"default": {"URL": REDIS_URL}}
# Whatever else the system's own documentation asks for.
globals().update(SYSTEM.settings)
