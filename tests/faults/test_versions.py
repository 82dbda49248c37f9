"""Two versions at once: during a deploy, workers of an older release run beside newer ones, on tables made for the newer."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection, migrations, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.models import NOT_PROVIDED

import djwebhooks
from djwebhooks.engines import rq
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event, WebhookTarget
from tests.engines.processes import PROJECT, wait_until
from tests.faults.books import check_books, unrecorded
from tests.faults.ledger import Answer, Entry, Ledger
from tests.faults.processes import Launcher, launching
from tests.faults.recovery import run_fresh_worker
from tests.faults.world import ON_RQ, PATHS, fire_some

#: How each says who it is.
OLD, NEW = f"djwebhooks/{djwebhooks.__version__}", "djwebhooks/99.0"
#: What a later migration may do: an older version neither misses what was there nor must know what is new.
ADDITIVE = (
    migrations.AddConstraint,
    migrations.AddField,
    migrations.AddIndex,
    migrations.AlterModelManagers,
    migrations.AlterModelOptions,
    migrations.CreateModel,
    migrations.RemoveConstraint,
    migrations.RemoveIndex,
)
#: What the next release may look like: each table has two more columns, and the user agent says the version.
NEWER = """

for _model in [kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, _models.Model)]:
    _model.add_to_class("newer_null", _models.CharField(max_length=8, null=True, default="newer"))
    _model.add_to_class("newer_default", _models.CharField(max_length=8, db_default="newer"))
"""


# -- the rule ----------------------------------------------------------------------------------------------------------


def is_additive(operation: Operation) -> bool:
    """Whether an older version can go on when this was done to its tables."""
    if isinstance(operation, migrations.AddField):
        return fills_itself(operation.field)
    return isinstance(operation, ADDITIVE)


def fills_itself(field: models.Field) -> bool:
    """Whether a row can be inserted by somebody who does not know this column."""
    return field.null or field.many_to_many or field.db_default is not NOT_PROVIDED


def list_later_operations() -> Iterator[Operation]:
    loader = MigrationLoader(None)
    for app, name in sorted(loader.disk_migrations):
        if app == "djwebhooks" and name != "0001_tables":
            yield from loader.disk_migrations[app, name].operations


def test_later_migrations_only_add() -> None:
    """What the first release knows stays as it is, and what is added fills itself."""
    assert [operation for operation in list_later_operations() if not is_additive(operation)] == []


@pytest.mark.parametrize(
    "operation",
    [
        migrations.AddField("Lane", "speed", models.IntegerField(default=1)),
        migrations.AlterField("Lane", "due_at", models.DateTimeField()),
        migrations.RemoveField("Lane", "due_at"),
        migrations.RenameField("Lane", "due_at", "next_at"),
        migrations.DeleteModel("Lane"),
        migrations.RenameModel("Lane", "Queue"),
        migrations.AlterModelTable("Lane", "lanes"),
        migrations.RunSQL("SELECT 1"),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_a_change_that_an_older_version_would_notice_is_not_additive(operation: Operation) -> None:
    """The rule finds each of them."""
    assert not is_additive(operation)


@pytest.mark.django_db
def test_every_column_is_of_the_first_release_or_fills_itself() -> None:
    """The tables, as they are in the database: an INSERT of the first release, which leaves new columns out, succeeds."""
    first = MigrationLoader(None).project_state([("djwebhooks", "0001_tables")]).apps
    with connection.cursor() as cursor:
        for model in first.get_app_config("djwebhooks").get_models():
            known = {field.column for field in model._meta.local_fields}
            columns = connection.introspection.get_table_description(cursor, model._meta.db_table)
            unfilled = [column.name for column in columns if not column.null_ok and column.default is None]

            assert known
            assert set(unfilled) <= known


def test_a_job_means_the_same_to_every_version() -> None:
    """Jobs that one version has queued are run by the other: their function has this path, and one argument."""
    assert f"{rq.run_job.__module__}.{rq.run_job.__qualname__}" == "djwebhooks.engines.rq.run_job"
    assert rq.run_job.__code__.co_argcount == 1


# -- for real ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def newer(tmp_path: Path, process_environment: Callable[..., dict[str, str]], redis: str) -> Iterator[Launcher]:
    """What starts processes of the next release: a copy of the package, with more columns."""
    package = tmp_path / "djwebhooks"
    shutil.copytree(Path(djwebhooks.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "example_project"):
        (tmp_path / name).symlink_to(PROJECT / name)
    (package / "__init__.py").write_text('"""The next release."""\n\n__version__ = "99.0"\n')
    with (package / "models" / "__init__.py").open("a") as file:
        file.write(f"\nfrom django.db import models as _models\n{NEWER}")
    with launching(process_environment(), tmp_path, cwd=tmp_path) as launcher:
        yield launcher


def run(launcher: Launcher, *words: str) -> None:
    child = launcher.command(*words)

    assert child.wait() == 0, child.output


def fire_many(owner: User, count: int = 20) -> None:
    for number in range(count):
        fire("thing.happened", {"number": number}, owner=owner, ordering_key=str(number % 3))


def agents(entries: Sequence[Entry]) -> set[str]:
    """Which versions have sent them."""
    return {entry.arrival.headers["user-agent"] for entry in entries}


@pytest.fixture
def deployed(newer: Launcher, owner: User, launcher: Launcher, ledger: Ledger) -> Iterator[None]:
    """The newer release's tables, made while an older worker is at work; they are taken back in the end."""
    older = launcher.command("webhooks", "work")
    fire_many(owner)
    run(newer, "makemigrations", "djwebhooks", "--name", "newer", "--verbosity", "0")
    run(newer, "migrate", "djwebhooks", "--verbosity", "0")
    fire_many(owner)
    wait_until(all_is_sent, "the older worker has sent all")
    older.stop()

    assert older.wait() == 0
    assert "Traceback" not in older.output
    assert agents(ledger.entries) == {OLD}

    yield
    run(newer, "migrate", "djwebhooks", "0001", "--verbosity", "0")


def all_is_sent() -> bool:
    return not Delivery.objects.pending().exists() and not Event.objects.waiting().exists()


@pytest.mark.usefixtures("deployed")
def test_both_work_at_once_and_read_what_the_other_writes(
    newer: Launcher, launcher: Launcher, ledger: Ledger, owner: User
) -> None:
    """Applications of both fire, either dispatches, and each sends to targets of its own."""
    mine, *others = [str(target.uid) for target in WebhookTarget.objects.order_by("pk")]
    older = launcher.command("webhooks", "work", "--target", mine)
    younger = newer.command("webhooks", "work", *[word for uid in others for word in ("--target", uid)])
    application = newer.call("tests.faults.world.be_an_application", 1, 1, 30)
    fire_many(owner)

    assert application.wait() == 0, application.output
    wait_until(all_is_sent, "both have sent all")
    for worker in (older, younger):
        worker.stop()
        assert worker.wait() == 0
        assert "Traceback" not in worker.output
    assert agents(ledger.entries) == {OLD, NEW}
    run(launcher, "webhooks", "work", "--burst")  # Who stops leaves its lanes to be looked at.
    assert not check_books(ledger).repeated


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize("dying", ["older", "newer"])
def test_each_goes_on_with_what_the_other_was_killed_at(
    newer: Launcher, launcher: Launcher, ledger: Ledger, owner: User, dying: str
) -> None:
    """The lanes of a killed worker, its deliveries and what it had half-way built are the other version's to go on with."""
    first, second, agent = (launcher, newer, NEW) if dying == "older" else (newer, launcher, OLD)
    before = len(ledger.entries)
    ledger.decide = lambda arrival: Answer(None)
    fire_some(owner)
    killed = first.command("webhooks", "work")
    wait_until(lambda: len(ledger.entries) == before + len(PATHS), "one request is on its way to each target")
    killed.kill()
    in_flight = unrecorded(ledger)
    ledger.decide = lambda arrival: Answer()

    run_fresh_worker(lambda: second.command("webhooks", "work", "--burst"))

    assert check_books(ledger).repeated == Counter(in_flight)
    assert agents(ledger.entries[-1:]) == {agent}


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize("waking", ["older", "newer"])
def test_each_runs_the_jobs_of_the_other(newer: Launcher, launcher: Launcher, ledger: Ledger, owner: User, waking: str) -> None:
    """A wake-up that one version has queued in Redis is a job to the other."""
    first, second, agent = (launcher, newer, NEW) if waking == "older" else (newer, launcher, OLD)
    application = first.call("tests.faults.world.add_authors", 2, **ON_RQ)
    assert application.wait() == 0, application.output

    run_fresh_worker(lambda: second.command("rqworker", "default", "--burst", **ON_RQ))

    check_books(ledger)
    assert agents(ledger.entries[-1:]) == {agent}
