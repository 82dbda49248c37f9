"""The addresses of the test project: the API, alone and once more below an organisation, and public keys; the inbox."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("djwebhooks.api.urls")),
    path("orgs/<slug:org>/api/", include("djwebhooks.api.urls")),
    path("inbox/", include("djwebhooks.inbox.urls")),
    path("keys/", include("djwebhooks.jwks")),
    path("django-rq/", include("django_rq.urls")),
]
