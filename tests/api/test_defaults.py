"""The project's defaults for REST framework change nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

from rest_framework.viewsets import GenericViewSet

from djwebhooks.api.views import OwnerViewSet

HOSTILE = {
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.StaticHTMLRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.FormParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "rest_framework.negotiation.BaseContentNegotiation",
    "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.AcceptHeaderVersioning",
    "ALLOWED_VERSIONS": ["8"],
    "DEFAULT_PAGINATION_CLASS": None,
    "PAGE_SIZE": 1,
    "DEFAULT_FILTER_BACKENDS": ["rest_framework.filters.SearchFilter", "rest_framework.filters.OrderingFilter"],
    "DEFAULT_METADATA_CLASS": "rest_framework.metadata.BaseMetadata",
    "EXCEPTION_HANDLER": "operator.is_",
    "DATETIME_FORMAT": "%d.%m.%y",
    "DATETIME_INPUT_FORMATS": ["%d"],
    "STRICT_JSON": False,
    "URL_FORMAT_OVERRIDE": "status",
}
OTHER_SETTINGS = {
    "REST_FRAMEWORK": HOSTILE,
    "DJWEBHOOKS_OWNER_MODEL": "library.Author",
    "DJWEBHOOKS_REQUEST_OWNER": "tests.api.world.own_author",
}
#: What stays the project's own: how users are known, and how often they may ask.
PROJECTS_OWN = {"authentication_classes", "throttle_classes", "settings", "schema"}


def test_no_default_is_used() -> None:
    """Every policy of a view is said, so that a new one of REST framework's is noticed."""
    policies = {name for name in vars(GenericViewSet.__mro__[-2]) if name.endswith(("_class", "_classes"))}
    policies |= {"pagination_class", "filter_backends"}

    assert policies - set(vars(OwnerViewSet)) - PROJECTS_OWN == set()


def test_the_api_is_the_same_under_hostile_defaults(tmp_path: Path) -> None:
    """A project with other defaults, another owner model and a function for it runs the tests of ``under_other_settings``."""
    root = Path(__file__).parents[2]
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "DJWEBHOOKS_TEST_"))}
    surroundings["DJWEBHOOKS_TEST_SETTINGS"] = json.dumps(OTHER_SETTINGS)

    command = [sys.executable, "-m", "pytest", "tests/api/under_other_settings.py", "-q", "-p", "no:cacheprovider"]
    # Without a place of its own it would tidy up those of other runs, this one's included.
    command += ["--basetemp", str(tmp_path / "inner")]
    run = subprocess.run(command, cwd=root, env=surroundings, capture_output=True, text=True, timeout=120)

    assert run.returncode == 0, run.stdout + run.stderr
    assert "11 passed" in run.stdout
