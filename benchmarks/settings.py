"""A project with nothing but djwebhooks, on the database that the environment names."""

import os

DATABASES = {
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
        "NAME": "postgres",
        "HOST": os.environ.get("PGHOST", ""),
        "PORT": os.environ.get("PGPORT", ""),
        "USER": os.environ.get("PGUSER", "postgres"),
    },
}
DATABASES = {"default": DATABASES[os.environ.get("BENCHMARK_DATABASE", "sqlite")]}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "djwebhooks"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECRET_KEY = "only for benchmarks"
USE_TZ = True
DJWEBHOOKS_ENGINE = "djwebhooks.engines.database.DatabaseEngine"
DJWEBHOOKS_ALLOW_HTTP = True
DJWEBHOOKS_ALLOWED_NETWORKS = ["127.0.0.0/8"]
