"""The addresses of the test project: API and portal, alone and once more below an organisation; public keys; the inbox."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("djwebhooks.api.urls")),
    path("orgs/<slug:org>/api/", include("djwebhooks.api.urls")),
    path("portal/", include("djwebhooks.portal.urls")),
    path("orgs/<slug:org>/portal/", include("djwebhooks.portal.urls", namespace="organisation")),
    path("inbox/", include("djwebhooks.inbox.urls")),
    path("keys/", include("djwebhooks.jwks")),
    path("django-rq/", include("django_rq.urls")),
]
