"""The addresses of the Retro Guestbook."""

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import include, path

urlpatterns = [
    path("", include("example_project.guestbook.urls")),
    path("login/", auth_views.LoginView.as_view(), name="login"),
    path("logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("portal/", include("djwebhooks.portal.urls")),
    path("api/", include("djwebhooks.api.urls")),
    path("django-rq/", include("django_rq.urls")),
]
