"""Any model may own targets, also one that only the second migration of its app creates."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import AnonymousUser, User
from django.db import migrations
from django.utils.functional import SimpleLazyObject

from djwebhooks import owners
from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.models import WebhookTarget
from djwebhooks.owners import check_owner, name_of_owner, owner_migration, owner_model
from tests.builders import URL, make_user
from tests.library.models import Author, Ticket

ROOT = Path(__file__).parent.parent


# -- which model ------------------------------------------------------------------------------------------------------


def test_the_owner_model_is_the_user_model_unless_set(settings: LazySettings) -> None:
    """Without a setting owners are users."""
    assert owner_model() == "auth.User"
    settings.DJWEBHOOKS_OWNER_MODEL = "library.Author"
    assert owner_model() == "library.Author"


def test_the_migration_that_makes_owners_is_found(settings: LazySettings) -> None:
    """Ours must run after it."""
    assert owner_migration() == ("auth", "0001_initial")
    settings.DJWEBHOOKS_OWNER_MODEL = "library.author"
    assert owner_migration() == ("library", "0001_initial")


@pytest.mark.parametrize("label", ["library.Nobody", "messages.Message"])
def test_an_unknown_model_is_left_to_the_check(settings: LazySettings, label: str) -> None:
    """A migration that does not exist must not hide the message of the system check."""
    settings.DJWEBHOOKS_OWNER_MODEL = label

    assert owner_migration() == (label.split(".")[0], "__first__")


@pytest.mark.parametrize(
    ("operation", "makes"),
    [
        (migrations.CreateModel("Team", []), True),
        (migrations.CreateModel("Teams", []), False),
        (migrations.RenameModel("Group", "Team"), True),
        (migrations.RenameModel("Team", "Group"), False),
        (migrations.DeleteModel("Team"), False),
        (migrations.SeparateDatabaseAndState(state_operations=[migrations.CreateModel("Team", [])]), True),
        (migrations.SeparateDatabaseAndState(database_operations=[migrations.CreateModel("Team", [])]), False),
    ],
    ids=repr,
)
def test_what_makes_a_model(operation: migrations.operations.base.Operation, makes: bool) -> None:
    """It is created, renamed to, or taken over from another app."""
    assert owners._creates(operation, "team") is makes


# -- whose ------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_owner_is_saved_and_of_the_model(settings: LazySettings) -> None:
    """The primary key of one, lazy or not; a ``TypeError`` names what is none. The database makes some keys."""
    user = make_user()

    assert check_owner(user) == check_owner(SimpleLazyObject(lambda: user)) == user.pk
    assert check_owner(None) is None
    for wrong, name in [(AnonymousUser(), "AnonymousUser"), (user.pk, "int"), (Author(pk=1), "Author"), (User, "ModelBase")]:
        with pytest.raises(TypeError, match=f"auth.User.*not {name}"):
            check_owner(wrong)
    with pytest.raises(TypeError, match="saved"):
        check_owner(User())
    settings.DJWEBHOOKS_OWNER_MODEL = "library.Ticket"
    with pytest.raises(TypeError, match="saved"):
        check_owner(Ticket())


@pytest.mark.django_db
def test_nobody_has_a_target_who_is_not_in_the_database() -> None:
    """One that was deleted meanwhile, or has a primary key before it is saved."""
    with pytest.raises(InvalidTarget, match="with the key 77"):
        WebhookTarget.objects.register(URL, ["a.b"], owner=User(pk=77))
    with pytest.raises(InvalidTarget, match="with the key 77"):
        fire("a.b", {}, owner=User(pk=77), urls=URL)
    assert not WebhookTarget.objects.exists()


def test_what_payloads_show_of_an_owner(settings: LazySettings) -> None:
    """The user name, else the primary key, unless a field is chosen."""
    user = User(pk=7, username="ada", email="ada@example.com")
    assert [name_of_owner(owner) for owner in (user, Author(pk=8), None)] == ["ada", "8", None]
    settings.DJWEBHOOKS_OWNER_FIELD = "email"

    assert name_of_owner(user) == "ada@example.com"


def test_a_wrong_owner_names_the_setting_that_says_which(settings: LazySettings) -> None:
    """Users are owners by Django's own setting, others by ours."""
    with pytest.raises(TypeError, match=r"owner must be auth\.User \(as AUTH_USER_MODEL says\) or None, not int\."):
        check_owner(1)
    settings.DJWEBHOOKS_OWNER_MODEL = "library.Author"
    with pytest.raises(TypeError, match=r"library\.Author \(as DJWEBHOOKS_OWNER_MODEL says\)"):
        check_owner(1)


# -- a project of its own ---------------------------------------------------------------------------------------------

SETTINGS = """
import os
SECRET_KEY = "the key of a small project"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_rq", "djwebhooks", "teams"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
RQ_QUEUES = {"default": {"URL": "redis://127.0.0.1:1/0"}}
AUTH_USER_MODEL = os.environ.get("USER_MODEL", "auth.User")
if "OWNER_MODEL" in os.environ:
    DJWEBHOOKS_OWNER_MODEL = os.environ["OWNER_MODEL"]
    DJWEBHOOKS_REQUEST_OWNER = "teams.models.find_ours"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
STATIC_URL = "static/"
DJWEBHOOKS_ENGINE = "djwebhooks.engines.database.DatabaseEngine"
"""

MODELS = """
import uuid
from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import models


class Region(models.Model):
    name = models.CharField(max_length=50)


class Team(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    slug = models.CharField(max_length=50)


class Member(AbstractUser):
    nick = models.CharField(max_length=50)

    class Meta:
        abstract = settings.AUTH_USER_MODEL != "teams.Member"


def find_ours(request):
    return Team.objects.get(slug="ours")
"""

FIRST = """
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel("Region", [
            ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
            ("name", models.CharField(max_length=50)),
        ]),
    ]
"""

USE = """
from types import SimpleNamespace
from django.apps import apps
from django.test import RequestFactory
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event, WebhookTarget
from djwebhooks.owners import owner_model
from djwebhooks.portal.views import TargetsView
from djwebhooks.testing import deliver

model = apps.get_model(owner_model())
field = "slug" if model.__name__ == "Team" else "username"
ours, theirs = model.objects.create(**{field: "ours"}), model.objects.create(**{field: "theirs"})
for owner in (ours, theirs):
    WebhookTarget.objects.register(f"https://example.com/{getattr(owner, field)}", ["a.*"], owner=owner)
WebhookTarget.objects.register("https://example.com/system", ["*"], owner=None)
fire("a.b", {"x": 1}, owner=ours, idempotency_key="k")
fire("a.b", {"x": 1}, owner=ours, idempotency_key="k")
requests = deliver()
assert sorted(request.url for request in requests) == ["https://example.com/ours", "https://example.com/system"], requests
system = next(request for request in requests if request.url.endswith("system"))
shown = str(ours.pk) if field == "slug" else "ours"
assert f'"owner":"{shown}"'.encode() in system.body, system.body
assert Event.objects.get().owner == ours
assert list(ours.webhook_targets.values_list("target_url", flat=True)) == ["https://example.com/ours"]
assert Delivery.objects.of_owner(ours).count() == 1
request = RequestFactory().get("/")
request.user = ours if field == "username" else SimpleNamespace(is_authenticated=True)
page = TargetsView.as_view()(request).content.decode()
assert [f"https://example.com/{name}" in page for name in ("ours", "theirs", "system")] == [True, False, False], page
ours.delete()
assert WebhookTarget.objects.count() == 2
print("all is well")
"""


@pytest.mark.parametrize(
    "models",
    [{"OWNER_MODEL": "teams.Team"}, {"USER_MODEL": "teams.Member"}, {"USER_MODEL": "teams.Member", "OWNER_MODEL": "teams.Team"}],
    ids=["owner", "user", "both"],
)
def test_a_project_with_owners_of_its_own(tmp_path: Path, models: dict[str, str]) -> None:
    """Its owner model, with a UUID as key, comes with its app's second migration: all is made, used, shown and complete."""
    app = tmp_path / "teams"
    (app / "migrations").mkdir(parents=True)
    (app / "__init__.py").touch()
    (app / "migrations" / "__init__.py").touch()
    (app / "migrations" / "0001_region.py").write_text(FIRST)
    (app / "models.py").write_text(MODELS)
    (tmp_path / "project_settings.py").write_text(dedent(SETTINGS))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DJWEBHOOKS_")},
        "DJANGO_SETTINGS_MODULE": "project_settings",
        "DATABASE": str(tmp_path / "db.sqlite3"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        **models,
    }

    def manage(*arguments: str) -> str:
        command = [sys.executable, "-m", "django", *arguments]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    manage("makemigrations", "teams", "--name", "team")
    assert (app / "migrations" / "0002_team.py").exists()
    manage("migrate", "--verbosity=0")
    manage("makemigrations", "--check", "--dry-run")
    assert "all is well" in manage("shell", "--verbosity=0", "--command", USE)
    manage("migrate", "djwebhooks", "zero", "--verbosity=0")


def test_a_model_that_is_not_installed_is_a_check_that_fails(tmp_path: Path) -> None:
    """A project with the admin is told by the check, not by an error of Django's while it loads the admin."""
    apps = ["django.contrib.admin", "django.contrib.messages", "django.contrib.sessions"]
    (tmp_path / "project_settings.py").write_text(f"{dedent(SETTINGS)}INSTALLED_APPS[-1:] = {apps}\n")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DJWEBHOOKS_")},
        "DJANGO_SETTINGS_MODULE": "project_settings",
        "DATABASE": str(tmp_path / "db.sqlite3"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "OWNER_MODEL": "shop.Org",
    }
    for command in (["check"], ["migrate"]):
        arguments = [sys.executable, "-m", "django", *command]
        done = subprocess.run(arguments, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

        assert done.returncode == 1
        assert "(djwebhooks.E003) DJWEBHOOKS_OWNER_MODEL is 'shop.Org': No installed app with label 'shop'." in done.stderr
        assert "Traceback" not in done.stderr
