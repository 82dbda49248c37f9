"""The addresses of a project that has the inbox alone."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("inbox/", include("djwebhooks.inbox.urls"))]
