"""Each transport, and what a worker makes of a table of receivers with it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import transaction

from tests.hostile.receivers import Case
from tests.hostile.runs import TRANSPORTS, MakeTransport, Run, run


@pytest.fixture(scope="module", params=TRANSPORTS)
def make_transport(request: pytest.FixtureRequest) -> MakeTransport:
    return TRANSPORTS[request.param]


@pytest.fixture(scope="module")
def run_once(
    make_transport: MakeTransport, django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Run]:
    """A function that sends to *cases*, for all tests of a module, and leaves nothing of it in the database."""

    def run_and_roll_back(cases: Sequence[Case], **settings: object) -> Run:
        with django_db_blocker.unblock(), transaction.atomic():
            try:
                return run(cases, make_transport, tmp_path_factory.mktemp("run"), **settings)
            finally:
                transaction.set_rollback(True)

    return run_and_roll_back
