"""The addresses of the guestbook and of its webhooks."""

from django.urls import path

from example_project.guestbook import views, webhook_views

urlpatterns = [
    path("", views.guestbook, name="guestbook"),
    path("webhooks/", webhook_views.webhooks, name="webhooks"),
    path("webhooks/add/", webhook_views.add, name="webhook-add"),
    path("webhooks/<uuid:uid>/", webhook_views.webhook, name="webhook"),
    path("webhooks/<uuid:uid>/pause/", webhook_views.pause, name="webhook-pause"),
    path("webhooks/<uuid:uid>/resume/", webhook_views.resume, name="webhook-resume"),
    path("webhooks/<uuid:uid>/test/", webhook_views.send_test, name="webhook-test"),
    path("webhooks/<uuid:uid>/delete/", webhook_views.delete, name="webhook-delete"),
    path("webhooks/<uuid:uid>/retry/<uuid:delivery_uid>/", webhook_views.retry, name="webhook-retry"),
]
