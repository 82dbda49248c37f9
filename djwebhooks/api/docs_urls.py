"""The API's description: include it where ``djwebhooks.api.urls`` is included (extra ``openapi``)."""

from django.apps import apps
from django.urls import path

from djwebhooks.api import docs
from djwebhooks.exceptions import ConfigurationError

if not apps.is_installed("drf_spectacular_sidecar"):
    raise ConfigurationError(
        "djwebhooks.api.docs_urls is included, but what its page consists of is not served: add 'drf_spectacular_sidecar' to "
        "INSTALLED_APPS."
    )

# Without an app_name, as the API's own, to be included as often.
urlpatterns = [path("schema/", docs.show_schema), path("docs/", docs.show_page)]
