"""Columns and indexes that each database has in its own way."""

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Model

from djwebhooks import database
from djwebhooks.database import ExactCharField, PartialIndex, VacuumAfter
from djwebhooks.models import Body, Delivery, Event, Subscription, WebhookTarget
from tests.builders import make_target
from tests.connections import postgresql_only
from tests.database.rows import DB

pytestmark = pytest.mark.django_db


#: Every column that is compared with what an application says.
EXACT = [
    (model, field.name)
    for model in (Body, Event, Delivery, Subscription, WebhookTarget)
    for field in model._meta.fields
    if isinstance(field, ExactCharField)
]


@pytest.mark.parametrize(("model", "name"), EXACT)
def test_texts_are_compared_letter_by_letter(model: type[Model], name: str) -> None:
    """Neither case, nor accents, nor spaces at the end are the same to any column that events and targets are matched by."""
    target = make_target(event="order")
    event = Event.objects.create(name="order", idempotency_digest="order")
    Delivery.objects.create(event=event, target=target, sequence=1)
    Body.objects.create(event=event, format="order", content=b"")
    model._base_manager.update(**{name: "order"})

    found = model._base_manager.filter(**{f"{name}__in": ["Order", "order ", "ordér", "order\t"]})

    assert not found.exists()
    assert model._base_manager.filter(**{name: "order"}).exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("model", [Event, Delivery])
def test_a_partial_index_can_be_taken_away_and_made_again(model: type[Model]) -> None:
    """Migrations go both ways on every database, also where an index is made in another way, or not at all."""
    indexes = [index for index in model._meta.indexes if isinstance(index, PartialIndex)]
    before = list_indexes(model)
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.remove_index(model, index)
    without = list_indexes(model)
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.add_index(model, index)

    # For a while MariaDB may have been given another one in the place of one that is gone.
    assert before <= list_indexes(model)
    assert before - without == {
        index.name for index in indexes if index.otherwise or connection.features.supports_partial_indexes
    }


def list_indexes(model: type[Model]) -> set[str]:
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, model._meta.db_table)
    return {name for name, constraint in constraints.items() if constraint["index"]}


@postgresql_only
@pytest.mark.django_db(transaction=True)
def test_hot_tables_are_cleaned_up_after_a_number_of_rows() -> None:
    """PostgreSQL's own rule is a share of the table, so a large one would keep its dead rows for long."""

    def read_options() -> dict[str, list[str] | None]:
        rows = database.execute(DB, "SELECT relname, reloptions FROM pg_class WHERE relname IN ('djw_event', 'djw_lane')")
        return dict(rows)

    there = ["autovacuum_vacuum_scale_factor=0", "autovacuum_vacuum_threshold=20000"]
    assert read_options()["djw_event"] == there
    state = MigrationExecutor(connection).loader.project_state()
    vacuum = VacuumAfter("event", 20_000)
    with connection.schema_editor() as editor:
        vacuum.database_backwards("djwebhooks", editor, state, state)
    assert read_options()["djw_event"] is None
    with connection.schema_editor() as editor:
        vacuum.database_forwards("djwebhooks", editor, state, state)
    assert read_options()["djw_event"] == there
