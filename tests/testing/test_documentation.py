"""The examples of the page about testing run, as its readers' tests would."""

import re
import sys
import unittest
from collections.abc import Iterator
from types import ModuleType

import pytest

from djwebhooks.events import fire
from djwebhooks.testing import assert_fired
from tests.builders import make_user
from tests.library.models import Author
from tests.test_docs import DOCS, read_blocks

pytestmark = pytest.mark.django_db

BLOCKS = {block.caption: block.text for block in read_blocks(DOCS / "how-to" / "testing.rst") if block.caption}
PLAIN_TESTS = ["packages/test_webhooks.py", "projects/test_webhooks.py"]


class Project(Author):
    """The application's model, as far as the examples know it."""

    class Meta:
        proxy = True
        app_label = "library"

    title = property(lambda self: self.name, lambda self, title: setattr(self, "name", title))


def run(caption: str) -> ModuleType:
    """Run a block as the module that its caption names."""
    module = ModuleType(caption.removesuffix(".py").replace("/", "."))
    sys.modules[module.__name__] = module
    exec(BLOCKS[caption], vars(module))
    return module


@pytest.fixture(autouse=True)
def project() -> Iterator[None]:
    """Install the application that the examples test."""
    before = dict(sys.modules)
    sys.modules |= {"projects": ModuleType("projects"), "projects.models": ModuleType("projects.models")}
    sys.modules["projects.models"].Project = Project  # type: ignore[attr-defined]
    run("projects/webhooks.py")
    yield
    for name in sys.modules.keys() - before:
        del sys.modules[name]


def test_the_test_case_passes() -> None:
    """Both of its tests."""
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(run("projects/tests.py").RenameTest)
    result = unittest.TestResult()
    suite.run(result)

    assert (result.testsRun, result.failures, result.errors) == (2, [], [])


@pytest.mark.parametrize("caption", PLAIN_TESTS)
def test_the_functions_pass(caption: str, request: pytest.FixtureRequest) -> None:
    """With the fixtures that they name."""
    functions = [value for name, value in vars(run(caption)).items() if name.startswith("test_")]

    assert functions
    for function in functions:
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        function(**{name: request.getfixturevalue(name) for name in names})


def test_a_failure_is_as_it_is_shown() -> None:
    """But for the number of the owner."""
    [shown] = [block.text for block in read_blocks(DOCS / "how-to" / "testing.rst") if block.language == "text"]
    ada = make_user("ada")
    fire("project.update", {"title": "old"}, owner=ada)

    with pytest.raises(AssertionError) as caught:
        assert_fired("project.update", owner=ada, payload={"title": "new"})

    assert re.sub(r"owner \d+", "owner 1", f"AssertionError: {caught.value}") == shown.strip()
