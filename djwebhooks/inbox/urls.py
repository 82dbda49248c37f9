"""One address for each source: ``include("djwebhooks.inbox.urls")``."""

from django.urls import path

from djwebhooks.inbox.views import accept

app_name = "djwebhooks_inbox"
urlpatterns = [
    path("<slug:name>/", accept, name="source"),
    # Senders follow no redirects.
    path("<slug:name>", accept),
]
