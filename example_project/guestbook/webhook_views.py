"""Manage the webhooks that are told of new comments. All of it is the keeper's alone."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from djwebhooks.models import Delivery, WebhookTarget
from example_project.guestbook.forms import WebhookForm
from example_project.guestbook.models import find_keeper
from example_project.guestbook.webhooks import comment_created

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]

#: Deliveries that a webhook's page shows.
LATEST = 50


def keeper_required(view: View[P]) -> View[P]:
    """Let in the guestbook's keeper, and nobody else: other people's webhooks would never be told anything."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if request.user != find_keeper():
            raise PermissionDenied("Only the keeper of the guestbook manages its webhooks.")
        return view(request, *args, **kwargs)

    return login_required(guarded)


def list_targets(request: HttpRequest) -> QuerySet[WebhookTarget]:
    """The targets of whoever asks; a stranger's is a 404."""
    return WebhookTarget.objects.filter(owner_id=request.user.pk, is_hidden=False)


@require_safe
@keeper_required
def webhooks(request: HttpRequest) -> HttpResponse:
    """Show all webhooks, and the form for another one."""
    return show_webhooks(request, WebhookForm())


def show_webhooks(request: HttpRequest, form: WebhookForm) -> HttpResponse:
    targets = list_targets(request).prefetch_related("subscriptions")
    context = {"form": form, "targets": targets, "event": comment_created.event, "receiver": settings.GUESTBOOK_RECEIVER}
    return render(request, "guestbook/webhooks.html", context)


@require_POST
@never_cache
@keeper_required
def add(request: HttpRequest) -> HttpResponse:
    """Add a webhook and show its secret, this once: it is in the answer itself, so that no session has to keep it."""
    form = WebhookForm(request.POST)
    if not form.is_valid():
        return show_webhooks(request, form)
    known = set(list_targets(request).values_list("pk", flat=True))
    try:
        target = WebhookTarget.objects.register(form.cleaned_data["url"], [comment_created.event], owner=request.user)
    except ValidationError as error:
        form.add_error("url", error.messages)
        return show_webhooks(request, form)
    if target.pk in known:
        messages.info(request, "This webhook is here already; its secret is shown only once.")
        return redirect("webhook", uid=target.uid)
    return render(request, "guestbook/webhook_added.html", {"target": target}, status=201)


@require_safe
@keeper_required
def webhook(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Show a webhook and its latest deliveries, each with its attempts."""
    target = get_object_or_404(list_targets(request), uid=uid)
    deliveries = Delivery.objects.filter(target=target).select_related("event").prefetch_related("attempts")[:LATEST]
    return render(request, "guestbook/webhook.html", {"target": target, "deliveries": deliveries})


@require_POST
@keeper_required
def pause(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Hold what is for this webhook from now on."""
    get_object_or_404(list_targets(request), uid=uid).pause()
    messages.success(request, "Paused: new comments wait until you resume.")
    return redirect("webhook", uid=uid)


@require_POST
@keeper_required
def resume(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Send again, beginning with what was held."""
    get_object_or_404(list_targets(request), uid=uid).resume()
    messages.success(request, "Resumed: what waited is on its way.")
    return redirect("webhook", uid=uid)


@require_POST
@keeper_required
def send_test(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Send a test event to this webhook alone."""
    get_object_or_404(list_targets(request), uid=uid).send_test()
    messages.success(request, "A test is on its way; reload the page to see how it went.")
    return redirect("webhook", uid=uid)


@require_POST
@keeper_required
def delete(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Delete a webhook; what waits for it is cancelled."""
    target = get_object_or_404(list_targets(request), uid=uid)
    target.delete()
    messages.success(request, f"Deleted: {target.target_url} is told nothing any more.")
    return redirect("webhooks")


@require_POST
@keeper_required
def retry(request: HttpRequest, uid: UUID, delivery_uid: UUID) -> HttpResponse:
    """Try a delivery again."""
    target = get_object_or_404(list_targets(request), uid=uid)
    get_object_or_404(Delivery, target=target, uid=delivery_uid).retry()
    messages.success(request, "Another attempt is on its way; reload the page to see how it went.")
    return redirect("webhook", uid=uid)
