"""The addresses of the receiver."""

from django.urls import path

from example_project.receiver import views

urlpatterns = [
    path("", views.arrivals, name="receiver"),
    path("inbox/", views.receive, name="receiver-inbox"),
    path("secret/", views.add_secret, name="receiver-secret"),
]
