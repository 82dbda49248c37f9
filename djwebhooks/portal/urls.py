"""The portal's addresses: include them anywhere, also below an owner's name."""

from django.urls import path

from djwebhooks.models import WebhookTarget
from djwebhooks.portal import views

app_name = "djwebhooks_portal"

target, delivery = "targets/<uuid:webhooks_id>/", "deliveries/<uuid:webhooks_id>/"
act_on_target, act_on_delivery = views.TargetActionView.as_view, views.DeliveryActionView.as_view

urlpatterns = [
    path("", views.TargetsView.as_view(), name="targets"),
    path(target, views.TargetView.as_view(), name="target"),
    path(f"{target}edit/", views.EditView.as_view(), name="edit"),
    path(f"{target}delete/", views.DeleteView.as_view(), name="delete"),
    path(f"{target}rotate-secret/", views.RotateView.as_view(), name="rotate-secret"),
    path(
        f"{target}test/",
        act_on_target(
            operation=WebhookTarget.send_test,
            words="A test is on its way: reload the page to see how it went.",
            closed_words="The test waits, like everything for this webhook, until it is sent to again.",
        ),
        name="test",
    ),
    path(
        f"{target}pause/",
        act_on_target(operation=WebhookTarget.pause, words="Paused: events wait until you resume it."),
        name="pause",
    ),
    path(
        f"{target}resume/",
        act_on_target(operation=WebhookTarget.resume, words="Resumed: what waited is on its way."),
        name="resume",
    ),
    path(
        f"{target}probe/",
        act_on_target(
            operation=WebhookTarget.probe,
            words="One request is on its way; if it succeeds, the rest follows.",
            refusal="It is paused, so nothing is sent: resume it.",
        ),
        name="probe",
    ),
    path(delivery, views.DeliveryView.as_view(), name="delivery"),
    path(
        f"{delivery}retry/",
        act_on_delivery(
            operation=views.retry,
            words="Another attempt is on its way: reload the page to see how it went.",
            closed_words="It is tried again when its webhook is sent to again.",
            refusal="It cannot be sent again: what it said was erased.",
        ),
        name="retry",
    ),
    path(
        f"{delivery}cancel/",
        act_on_delivery(operation=views.cancel, words="Cancelled.", refusal="It had ended before."),
        name="cancel",
    ),
]
