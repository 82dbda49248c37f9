"""The addresses of the receiver: the guestbook sends to ``webhooks/guestbook/``."""

from django.contrib import admin
from django.urls import include, path

from example_project.receiver import views

urlpatterns = [
    path("", views.receiver, name="receiver"),
    path("messages/<str:message_id>/", views.message, name="message"),
    path("webhooks/", include("djwebhooks.inbox.urls")),
    path("admin/", admin.site.urls),
]
