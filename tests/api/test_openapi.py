"""The API's description is true, complete, and served without anybody else's help."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import urljoin

import pytest
from django.conf import LazySettings
from django.contrib.staticfiles import finders
from django.test import Client
from django.urls import include, path
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from jsonschema import Draft202012Validator

from djwebhooks.api import docs, openapi, urls
from djwebhooks.exceptions import ConfigurationError
from tests.api.world import URL, Api, make_publisher, make_webhooks

ROOT = Path(__file__).parents[2]
SIDECAR = "drf_spectacular_sidecar"
DESCRIBED = [path("", include("djwebhooks.api.urls")), path("schema/", docs.show_schema), path("docs/", docs.show_page)]
urlpatterns = [path("api/", include(DESCRIBED)), path("orgs/<slug:org>/api/", include(DESCRIBED))]

described = pytest.mark.urls(__name__)


def list_routes() -> set[tuple[str, str]]:
    """The method and the path of each of the API's operations."""
    return {
        (method, "/" + re.sub(r"<[^>]+>", "{id}", str(url.pattern)))
        for url in urls.urlpatterns
        for method in getattr(url.callback, "actions", {})
        if method != "head"
    }


def list_operations(schema: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method, route): told for route, item in schema["paths"].items() for method, told in item.items()}


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, where Django has yet to begin."""
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = [sys.executable, "-c", dedent(script)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


# -- the document ------------------------------------------------------------------------------------------------------


def test_the_document_is_valid_and_raises_no_doubts() -> None:
    """It is OpenAPI 3.1, and drf-spectacular had to guess nothing."""
    schema = openapi._describe.__wrapped__()

    assert not GENERATOR_STATS
    validate_schema(schema)
    assert schema["openapi"] == "3.1.0"


def test_every_array_says_what_is_in_it() -> None:
    """Those that generate clients need it, and would leave the answer out."""

    def list_arrays(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict) and value.get("type") == "array":
            yield value
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from list_arrays(part)

    arrays = list(list_arrays(openapi.describe("/api")))

    assert arrays
    assert [array for array in arrays if "items" not in array] == []


def test_every_operation_is_described() -> None:
    """The document has each method of each path, and no others; what is said of actions that are none would be dead."""
    operations = list_operations(openapi.describe("/api"))
    actions = {
        (url.callback.cls, action)  # type: ignore[attr-defined]
        for url in urls.urlpatterns
        for method, action in url.callback.actions.items()  # type: ignore[attr-defined]
        if method != "head"
    }

    assert set(operations) == list_routes()
    assert {(view, action) for view, told in openapi.OPERATIONS.items() for action in told} == actions
    assert all(told["summary"] and told["tags"] for told in operations.values())
    assert len({told["operationId"] for told in operations.values()}) == len(operations)


def test_errors_are_described() -> None:
    """What every request, one with a body, one about a row and one that is throttled may be answered."""
    errors = {
        key: {code for code in told["responses"] if "4" <= code < "5"}
        for key, told in list_operations(openapi.describe("")).items()
    }

    assert errors["get", "/targets/"] == {"400", "401", "403"}
    assert errors["patch", "/targets/{id}/"] == {"400", "401", "403", "404", "409", "413", "415"}
    assert errors["post", "/targets/{id}/test/"] == {"400", "401", "403", "404", "413", "415", "429"}
    assert errors["delete", "/deliveries/{id}/"] == {"401", "403", "404", "409"}
    assert "422" in errors["post", "/events/"]


def test_the_codes_of_errors_are_those_of_the_reference() -> None:
    """The document and the page name the same codes for each status."""
    page = (ROOT / "docs/reference/api.rst").read_text().partition("Status  ``code``")[2].partition("\n\n")[0]
    rows = re.findall(r"^(\d{3}) (.+(?:\n    .+)*)", page, re.MULTILINE)
    documented = {int(code): set(re.findall(r"``([a-z_]+)``", text)) - {"errors"} for code, text in rows}
    described = {code: set(re.findall(r"`([a-z_]+)`", text)) - {"errors"} for code, text in openapi.ERRORS.items()}

    assert documented == described | {405: {"method_not_allowed"}}


def test_the_projects_own_document_has_the_api_too() -> None:
    """Once ``djwebhooks.api.openapi`` is imported, drf-spectacular knows our views wherever they are included."""
    patterns = [path("orgs/<slug:org>/api/", include("djwebhooks.api.urls")), path("api/", include("djwebhooks.api.urls"))]
    schema = SchemaGenerator(patterns=patterns).get_schema(request=None, public=True)
    operations = list_operations(schema)

    validate_schema(schema)
    assert schema["openapi"] == "3.0.3"
    told = operations["post", "/orgs/{org}/api/targets/{webhooks_id}/test/"]
    assert [parameter["name"] for parameter in told["parameters"]] == ["org", "webhooks_id"]
    assert set(told["responses"]) == {"202", "400", "401", "403", "404", "413", "415", "429", "500"}
    assert len(operations) == 2 * len(list_routes())


def test_the_projects_own_document_raises_no_doubts() -> None:
    """With the setting that the reference shows, drf-spectacular has nothing to warn of."""
    page = (ROOT / "docs/reference/api.rst").read_text()
    [shown] = re.findall(r"^    SPECTACULAR_SETTINGS = (\{\n.*?^    \})$", page, re.MULTILINE | re.DOTALL)
    script = f"""
        import sys, django
        from django.conf import settings
        settings.SPECTACULAR_SETTINGS = {" ".join(shown.split())}
        django.setup()
        from django.urls import include, path
        from drf_spectacular.drainage import GENERATOR_STATS
        from drf_spectacular.generators import SchemaGenerator
        import djwebhooks.api.openapi
        patterns = [path("api/", include("djwebhooks.api.urls"))]
        SchemaGenerator(patterns=patterns).get_schema(request=None, public=True)
        sys.exit(bool(GENERATOR_STATS))
    """
    run = run_script(script)

    assert run.returncode == 0, run.stderr


# -- what is answered --------------------------------------------------------------------------------------------------


def check(key: tuple[str, str], data: Any) -> None:
    """Hold *data*, a 200, against what is said of it, and see that all of it is said."""
    schema = openapi.describe("/api")
    told = list_operations(schema)[key]["responses"]["200"]["content"]["application/json"]["schema"]
    closed = {name: {"additionalProperties": False} | part for name, part in schema["components"]["schemas"].items()}
    Draft202012Validator(told | {"components": {"schemas": closed}}).validate(data)


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["targets", "events", "deliveries", "attempts", "replays", "hooks"])
def test_rows_are_as_described(kind: str) -> None:
    """A list and a row of it have the fields that the document gives them, and no others."""
    make_webhooks(user := make_publisher())
    api = Api(user)

    page = api.get(f"{kind}/").data

    check(("get", f"/{kind}/"), page)
    check(("get", f"/{kind}/{{id}}/"), api.get(f"{kind}/{page['results'][0]['id']}/").data)


@pytest.mark.django_db
def test_what_is_no_row_is_as_described(settings: LazySettings) -> None:
    """The same of the catalogue, and of the feed."""
    settings.DJWEBHOOKS_EVENTS = {"project.update": {"schema": {"type": "object"}}, "project.done": {"sample": 1}}
    webhooks = make_webhooks(user := make_publisher())

    check(("get", "/event-types/"), Api(user).get("event-types/").data)
    check(("get", "/feed/"), Api(user).get(f"feed/?target={webhooks.target.uid}").data)


@pytest.mark.django_db
def test_what_cannot_be_read_is_null_as_described(settings: LazySettings) -> None:
    """A target whose keys nothing opens is shown with nulls that the document allows."""
    webhooks = make_webhooks(user := make_publisher())
    webhooks.target.headers = {"a": "b"}
    webhooks.target.save()
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["another key, which opens nothing of what was sealed before"]

    answer = Api(user).get(f"targets/{webhooks.target.uid}/")

    assert (answer.data["keys"], answer.data["headers"]) == (None, None)
    check(("get", "/targets/{id}/"), answer.data)


@pytest.mark.django_db
def test_errors_are_as_described() -> None:
    """An error has what the document gives it."""
    answer = Api(make_publisher()).post("targets/", {"target_url": URL, "events": ["no name!"]})
    error = Draft202012Validator({"additionalProperties": False} | openapi.describe("")["components"]["schemas"]["Error"])

    assert list(answer.mistakes) == ["events.0"]
    error.validate(answer.data)


# -- the addresses -----------------------------------------------------------------------------------------------------


@described
@pytest.mark.parametrize("prefix", ["/api", "/orgs/acme/api"])
def test_the_document_says_where_the_api_is(prefix: str) -> None:
    """Wherever it is included, the document is about the API beside it, and anybody may read it."""
    answer = Api(None, f"{prefix}/").get("schema/")

    assert answer.status == 200
    assert answer.data["servers"] == [{"url": prefix}]
    assert answer.data["paths"] == openapi.describe("")["paths"]


@described
@pytest.mark.parametrize("page", ["schema/", "docs/"])
def test_anybody_may_read_both(page: str, settings: LazySettings) -> None:
    """Even where a project asks everybody to log in: neither tells of a row."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]

    assert Client().get(f"/api/{page}").status_code == 200


@described
def test_the_page_asks_nobody_else(settings: LazySettings) -> None:
    """All that it loads is served from here, nothing runs that a content security policy would have to name."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, SIDECAR]

    response = Client().get("/api/docs/")

    text = response.content.decode()
    addresses = [urljoin("/api/docs/", address) for address in re.findall(r'(?:src|href|data-schema)="([^"]*)"', text)]
    assert response.status_code == 200
    assert {address for address in addresses if not address.startswith("/static/")} == {"/api/schema/"}
    assert all(finders.find(address.removeprefix("/static/")) for address in addresses if address.startswith("/static/"))
    assert not re.search(r"<script>|<style|\son\w+=|//", text.replace("<!DOCTYPE html>", ""))
    script = Path(str(finders.find("djwebhooks/api.js"))).read_text()
    assert "validatorUrl: null" in script


def test_the_page_needs_its_files() -> None:
    """Whoever includes it without the app that has them is told at the start."""
    with pytest.raises(ConfigurationError, match=f"add '{SIDECAR}' to INSTALLED_APPS"):
        import_module("djwebhooks.api.docs_urls")


def test_the_api_does_not_need_the_extra() -> None:
    """Without drf-spectacular all of the API works; its description says what to install."""
    script = """
        import sys
        sys.modules["drf_spectacular"] = None
        import django
        django.setup()
        import djwebhooks.api.urls
        try:
            import djwebhooks.api.openapi
        except ImportError as error:
            print(error)
    """
    run = run_script(script)

    assert run.returncode == 0, run.stderr
    assert "pip install 'djwebhooks[openapi]'" in run.stdout
