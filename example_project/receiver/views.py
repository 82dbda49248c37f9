"""Receive webhooks as their receiver should: verify, store, answer at once. And show them."""

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from djwebhooks import signing
from djwebhooks.exceptions import InvalidSignature
from example_project.receiver.models import Arrival, Secret

#: Arrivals that the page shows.
LATEST = 50


class SecretForm(forms.ModelForm):
    """A secret, as the sender showed it once."""

    class Meta:
        model = Secret
        fields = ["text"]
        widgets = {"text": forms.TextInput(attrs={"placeholder": "whsec_…", "autocomplete": "off", "spellcheck": "false"})}


@csrf_exempt
@require_POST
def receive(request: HttpRequest) -> HttpResponse:
    """Store what arrives and answer; whoever does more than this before the answer keeps the sender waiting."""
    reason = find_fault(request)
    message_id = request.headers.get("webhook-id", "")[:255]
    Arrival.objects.create(
        message_id=message_id,
        attempt=request.headers.get("webhook-attempt", "")[:20],
        sequence=request.headers.get("webhook-sequence", "")[:20],
        is_verified=not reason,
        # The same id twice is the same event twice: act on the first one only.
        is_repeat=Arrival.objects.filter(message_id=message_id, is_verified=True).exists(),
        reason=reason,
        body=request.body.decode(errors="replace"),
    )
    if reason:
        return HttpResponse(f"Refused: {reason}\n", status=401, content_type="text/plain")
    return HttpResponse("Thank you.\n", content_type="text/plain")


def find_fault(request: HttpRequest) -> str:
    """Why the signature is not trusted; empty if it is."""
    secrets = list(Secret.objects.values_list("text", flat=True))
    if not secrets:
        return "The receiver has been told no secret yet."
    try:
        signing.verify(request.body, request.headers, secrets)
    except InvalidSignature as error:
        return str(error)
    return ""


@require_safe
@transaction.non_atomic_requests  # The page looks every few seconds, and needs no lock to read.
def arrivals(request: HttpRequest) -> HttpResponse:
    """Show what arrived, newest first; with ``?after=`` only the list of what came after that one."""
    found = Arrival.objects.all()
    after = request.GET.get("after", "")
    if after.isascii() and after.isdigit():
        return render(request, "receiver/arrivals.html", {"arrivals": found.filter(pk__gt=int(after[:18]))[:LATEST]})
    return show(request, SecretForm())


def show(request: HttpRequest, form: SecretForm) -> HttpResponse:
    context = {"arrivals": Arrival.objects.all()[:LATEST], "form": form, "secret_count": Secret.objects.count()}
    return render(request, "receiver/receiver.html", context)


@require_POST
def add_secret(request: HttpRequest) -> HttpResponse:
    """Learn a secret. What arrives from now on may be signed with it."""
    form = SecretForm(request.POST)
    if not form.is_valid():
        return show(request, form)
    form.save()
    messages.success(request, "Learnt. What is signed with this secret is trusted from now on.")
    return redirect("receiver")
