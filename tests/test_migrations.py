"""The migrations: which are run, and where."""

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder


def list_names() -> list[str]:
    return sorted(name for app, name in MigrationLoader(None).disk_migrations if app == "djwebhooks")


@pytest.mark.django_db
def test_tables_are_made_where_another_package_had_the_same_label() -> None:
    """What was recorded for migrations that a project had made for dj-webhooks does not count as ours."""
    recorder = MigrationRecorder(connection)
    for name in list_names():
        recorder.record_unapplied("djwebhooks", name)
    recorder.record_applied("djwebhooks", "0001_initial")
    executor = MigrationExecutor(connection)
    executor.loader.check_consistent_history(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes("djwebhooks"))

    assert [migration.name for migration, _ in plan if migration.app_label == "djwebhooks"] == list_names()
