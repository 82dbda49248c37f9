"""What the page about the portal tells to write works."""

from pathlib import Path
from types import ModuleType

import pytest
from django.conf import LazySettings
from django.test import Client
from django.urls import include, path

from tests.api.world import make_owner
from tests.portal.visitors import visit
from tests.test_docs import DOCS, read_blocks


@pytest.fixture
def blocks() -> dict[str, list[str]]:
    """What the page has of each language."""
    found: dict[str, list[str]] = {}
    for block in read_blocks(DOCS / "how-to" / "portal.rst"):
        found.setdefault(block.language, []).append(block.text)
    return found


@pytest.fixture
def client(blocks: dict[str, list[str]], settings: LazySettings) -> Client:
    """A visitor of a site that has the portal at the page's addresses."""
    urls = ModuleType("urls_of_a_site")
    urls.urlpatterns = [eval(text.strip().rstrip(","), {"path": path, "include": include}) for text in blocks["python"]]
    settings.ROOT_URLCONF = urls
    settings.DJWEBHOOKS_REQUEST_OWNER = "tests.portal.test_views.find_acme"
    return visit(make_owner("acme"))


@pytest.mark.django_db
def test_it_is_included_twice(client: Client) -> None:
    """Alone, and below an owner's name."""
    assert [client.get(url).status_code for url in ("/webhooks/", "/orgs/acme/webhooks/", "/orgs/")] == [200, 200, 404]


@pytest.mark.django_db
def test_it_fits_into_a_sites_own_page(
    client: Client, blocks: dict[str, list[str]], settings: LazySettings, tmp_path: Path
) -> None:
    """A template of the site's stands around all of its pages."""
    [template] = blocks["html"]
    (tmp_path / "djwebhooks" / "portal").mkdir(parents=True)
    (tmp_path / "djwebhooks" / "portal" / "base.html").write_text(template)
    (tmp_path / "base.html").write_text("<head>{% block head %}{% endblock %}</head>Our site: {% block main %}{% endblock %}")
    [engine] = settings.TEMPLATES
    settings.TEMPLATES = [engine | {"DIRS": [tmp_path]}]

    page = client.get("/webhooks/").content.decode()

    assert page.startswith(
        '<head><link rel="stylesheet" href="/static/djwebhooks/portal.css"></head>Our site: <div class="djw-portal">'
    )
    assert "<h1>Webhooks</h1>" in page
    assert page.rstrip().endswith("</div>")
