"""The tables of other packages beside ours."""

from collections.abc import Iterator

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.adoption.tables import drop_tables, make_tables


@pytest.fixture(scope="module", autouse=True)
def _old_tables(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """MariaDB makes no tables inside a transaction, so they are there for all tests of a module."""
    with django_db_blocker.unblock():
        make_tables()
    yield
    with django_db_blocker.unblock():
        drop_tables()
