"""The examples of the documentation do what they say."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.test import Client

from djwebhooks.inbox import handlers
from djwebhooks.inbox.models import Message, Status
from djwebhooks.inbox.sources import read_source
from djwebhooks.inbox.testing import handle, signed
from tests.test_docs import DOCS, PROJECT, read_blocks

pytestmark = pytest.mark.django_db


class Packages:
    """Stands for the model of the example: remembers what was asked of it."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, str]] = []

    def filter(self, repo_url: str) -> Any:
        return SimpleNamespace(update=lambda last_commit: self.updates.append((repo_url, last_commit)))


@pytest.fixture
def packages() -> Iterator[Packages]:
    """Install the example's handler, and what it imports, for this test."""
    [block] = [block for block in read_blocks(DOCS / "how-to" / "inbox.rst") if block.caption == "packages/webhooks.py"]
    before, packages = handlers.list_receivers(), Packages()
    module = ModuleType("packages.models")
    module.Package = SimpleNamespace(objects=packages)
    sys.modules |= {"packages": ModuleType("packages"), "packages.models": module}
    exec(block.text, {"__name__": "packages.webhooks"})
    yield packages
    handlers._receivers[:] = before
    del sys.modules["packages"], sys.modules["packages.models"]


def test_a_push_updates_its_package_and_a_ping_nothing(packages: Packages) -> None:
    """As GitHub sends them."""
    push = {
        "ref": "refs/heads/main",
        "repository": {"html_url": "https://github.com/djangopackages/djangopackages"},
        "head_commit": {"timestamp": "2026-09-21T14:13:20+02:00"},
    }
    deletion = {**push, "head_commit": None}
    sent = [("ping", {"zen": "Design for failure."}, "1"), ("push", push, "2"), ("push", push, "2"), ("push", deletion, "3")]
    for event, content, message_id in sent:
        assert Client().post(**signed("github", content, event=event, message_id=message_id)).status_code == 200

    assert len(handle()) == 3
    assert packages.updates == [("https://github.com/djangopackages/djangopackages", "2026-09-21T14:13:20+02:00")]
    assert Message.objects.get(message_id="2").status == Status.PROCESSED


def test_the_handler_passes_the_test_that_is_shown_for_it(packages: Packages) -> None:
    """The page about testing sends the site that this page sets up a push that it can handle."""
    [block] = [block for block in read_blocks(DOCS / "how-to" / "testing.rst") if block.caption == "packages/test_webhooks.py"]
    tests: dict[str, Any] = {}
    exec(block.text, tests)

    tests["test_a_push_is_handled"](Client())

    assert packages.updates == [("https://github.com/djangopackages/djangopackages", "2026-09-21T14:13:20+02:00")]


def test_the_sources_of_the_reference_are_possible() -> None:
    """Each of them passes the checks."""
    names: dict[str, Any] = {"os": SimpleNamespace(environ={"SHOPIFY_SECRET": "x", "GITHUB_WEBHOOK_SECRET": "y"})}
    for page in ("inbox", "settings"):
        for block in read_blocks(DOCS / "reference" / f"{page}.rst"):
            if "DJWEBHOOKS_INBOX = " in block.text:
                exec(block.text, names)
                for name, options in names["DJWEBHOOKS_INBOX"].items():
                    assert read_source(name, options).name == name


SITE = """
SECRET_KEY = "x" * 50
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
ROOT_URLCONF = "urls"
USE_TZ = True
MIGRATION_MODULES = {"packages": None}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""


def test_the_site_of_the_page_about_github_passes_its_own_tests(tmp_path: Path) -> None:
    """Its blocks are the files of a project, which has no other part of djwebhooks."""
    (tmp_path / "settings.py").write_text(SITE)
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "__init__.py").touch()
    for block in read_blocks(DOCS / "how-to" / "github.rst"):
        with (tmp_path / block.caption).open("a") as file:
            file.write(f"\n{block.text}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DJ")}
    environment |= {"PYTHONPATH": str(PROJECT), "DJANGO_SETTINGS_MODULE": "settings", "GITHUB_WEBHOOK_SECRET": "x" * 32}
    command = [sys.executable, "-m", "django", "test", "--pythonpath", str(tmp_path)]

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    assert (done.returncode, "Ran 5 tests" in done.stderr) == (0, True), done.stderr
