"""The addresses of the test project: the API, alone and once more below an organisation, and public keys."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("djwebhooks.api.urls")),
    path("orgs/<slug:org>/api/", include("djwebhooks.api.urls")),
    path("keys/", include("djwebhooks.jwks")),
    path("django-rq/", include("django_rq.urls")),
]
