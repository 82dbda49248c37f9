"""Show what has come, and what was made of it. To take it in is the inbox's work."""

import json

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from djwebhooks.inbox.gaps import find_gaps
from djwebhooks.inbox.models import Message
from example_project.receiver.models import Printed

#: Messages that the page shows.
LATEST = 50


@require_safe
def receiver(request: HttpRequest) -> HttpResponse:
    """Show the newest messages first; with ``?list`` only them, for the page's script."""
    messages = list(Message.objects.all()[:LATEST])
    printed = {row.message_id: row for row in Printed.objects.filter(message_id__in=[row.message_id for row in messages])}
    rows = [{"message": row, "body": lay_out(bytes(row.body)), "printed": printed.get(row.message_id)} for row in messages]
    address = request.build_absolute_uri(reverse("djwebhooks_inbox:source", args=["guestbook"]))
    template = "receiver/messages.html" if "list" in request.GET else "receiver/receiver.html"
    return render(request, template, {"rows": rows, "gaps": find_gaps("guestbook"), "address": address})


@require_safe
def message(request: HttpRequest, message_id: str) -> JsonResponse:
    """Say what has become of a message."""
    row = get_object_or_404(Message, source="guestbook", message_id=message_id)
    printed = Printed.objects.filter(message_id=message_id).first()
    return JsonResponse(
        {
            "event": row.event,
            "status": row.status,
            "attempt": row.headers.get("webhook-attempt", ""),
            "sequence": row.sequence,
            "printed": str(printed) if printed else "",
        }
    )


def lay_out(body: bytes) -> str:
    """Return a body as people read it."""
    text = body.decode(errors="replace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
