"""The portal's views: each finds a row of the owner's, calls one function of the models and shows what came of it."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import DateTimeField, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect

from djwebhooks import rows, senders
from djwebhooks.exceptions import AlreadyFinished, ErasedEvent, InvalidTarget, UnknownSender
from djwebhooks.models import Body, Delivery, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.models.events import events_database
from djwebhooks.models.replays import Through
from djwebhooks.owners import find_owner
from djwebhooks.portal.forms import TargetForm
from djwebhooks.portal.reasons import CLOSED, describe_reason, explain_delivery, explain_target
from djwebhooks.words import name_failure, pretty

#: The argument of the portal's own URLs; all others are of the URL that it is included at.
ID = "webhooks_id"
#: Rows of a page, and attempts of a delivery, the latest.
PAGE = 25
#: How many of a target's deliveries are looked through for the last that succeeded, and the last that did not.
LATEST = 1000
#: Characters of a body that are shown.
SHOWN = 64 * 1024


@method_decorator([never_cache, csrf_protect, login_required], name="dispatch")
class OwnerView(View):
    """What all pages have in common: somebody is logged in, and it is known whose webhooks are shown."""

    owner: Any

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Let nobody in who has no owner."""
        self.prefix = {name: value for name, value in kwargs.items() if name != ID}
        self.owner = find_owner(request, self.prefix)
        return super().dispatch(request, *args, **kwargs)

    def go_to(self, name: str, uid: object = None) -> HttpResponse:
        """Redirect to the page *name*, of the row *uid*, where this portal is included."""
        here = self.request.resolver_match
        namespace, colon, _ = here.view_name.rpartition(":") if here else ("", "", "")
        own = {} if uid is None else {ID: uid}
        return redirect(reverse(f"{namespace}{colon}{name}", kwargs=self.prefix | own))

    def show(self, template: str, code: int = 200, **context: Any) -> HttpResponse:
        """Return the answer that is a page."""
        return render(self.request, f"djwebhooks/portal/{template}.html", context, status=code)

    def find_target(self, targets: QuerySet[WebhookTarget] | None = None) -> WebhookTarget:
        """Return the target that the URL names, from *targets*. Raises ``Http404``."""
        found = rows.targets_of(self.owner).select_related("lane") if targets is None else targets
        return get_object_or_404(found, uid=self.kwargs[ID])

    def lock_target(self) -> WebhookTarget:
        """Return that target, as nobody else can change it until the transaction ends. Raises ``Http404``."""
        return self.find_target(rows.targets_of(self.owner).select_for_update())

    def find_delivery(self) -> Delivery:
        """Return the delivery that the URL names, unless its target is hidden. Raises ``Http404``."""
        deliveries = rows.deliveries_of(self.owner).filter(target__is_hidden=False)
        return get_object_or_404(deliveries.select_related("target__lane"), uid=self.kwargs[ID])


# -- targets -----------------------------------------------------------------------------------------------------------


class TargetsView(OwnerView):
    """All targets, and the form for another one."""

    def get(self, request: HttpRequest, **_: Any) -> HttpResponse:
        """Show them."""
        return self.show_all(TargetForm())

    def post(self, request: HttpRequest, **_: Any) -> HttpResponse:
        """Make a target, and show its secret this once: in the answer itself, so that no session has to keep it."""
        form = TargetForm(request.POST)
        target = form.add(self.owner) if form.is_valid() else None
        return self.show_all(form) if target is None else self.show("secret", 201, target=target, is_new=True)

    def show_all(self, form: TargetForm) -> HttpResponse:
        """Show the targets, and *form*."""
        targets = rows.targets_of(self.owner).select_related("lane").prefetch_related("subscriptions").order_by("-pk")
        targets = targets.annotate(succeeded_at=last_end(Status.SUCCEEDED), failed_at=last_end(Status.FAILED))
        page = Paginator(targets, PAGE).get_page(self.request.GET.get("page"))
        now = timezone.now()
        listed = [(target, explain_target(target, now)) for target in page]
        return self.show("targets", form=form, page=page, listed=listed)


def last_end(status: Status) -> Subquery:
    """When the last of a target's latest deliveries ended with *status*."""
    deliveries = Delivery.objects.using(events_database())
    latest = deliveries.filter(target=OuterRef("pk"), sequence__gt=OuterRef("lane__tail") - LATEST, status=status)
    return Subquery(latest.order_by("-sequence").values("finished_at")[:1], output_field=DateTimeField())


class TargetView(OwnerView):
    """A target: how it fares, what can be done about it, and its deliveries."""

    def get(self, request: HttpRequest, **_: Any) -> HttpResponse:
        """Show it."""
        target, state = self.find_target(), request.GET.get("status", "")
        deliveries = rows.deliveries_of(self.owner).filter(target=target).order_by("-sequence")
        query = {"status": state} if state in Status.values else {}
        before = request.GET.get("before", "")
        is_later = before.isascii() and before.isdecimal() and len(before) <= 18
        cut = {"sequence__lt": int(before)} if is_later else {}
        found = list(deliveries.filter(**query, **cut)[: PAGE + 1])
        older = urlencode({**query, "before": found[PAGE - 1].sequence}) if len(found) > PAGE else ""
        return self.show(
            "target",
            target=target,
            reasons=explain_target(target, timezone.now()),
            is_closed=target.state in CLOSED,
            deliveries=[(delivery, describe_reason(delivery)) for delivery in found[:PAGE]],
            status=query.get("status", ""),
            statuses=Status.values,
            newest=f"?{urlencode(query)}" if is_later else "",
            older=f"?{older}" if older else "",
        )


class EditView(OwnerView):
    """The form that changes a target."""

    def get(self, request: HttpRequest, **_: Any) -> HttpResponse:
        """Show it."""
        target = self.find_target()
        return self.show("edit", target=target, form=TargetForm(target=target))

    def post(self, request: HttpRequest, **_: Any) -> HttpResponse:
        """Change the target."""
        with transaction.atomic(using=events_database()):
            target = self.lock_target()
            form = TargetForm(request.POST, target=target)
            is_changed = form.is_valid() and form.change(target)
        if not is_changed:
            return self.show("edit", target=self.find_target(), form=form)
        messages.success(request, "Saved.", fail_silently=True)
        return self.go_to("target", target.uid)


class DeleteView(OwnerView):
    """Asks whether a target is to be deleted, and deletes it."""

    def get(self, request: HttpRequest, **_: Any) -> HttpResponse:
        """Ask."""
        return self.show("delete", target=self.find_target())

    def post(self, request: HttpRequest, **_: Any) -> HttpResponse:
        """Delete it; what waits for it is cancelled."""
        target = self.find_target()
        target.delete()
        messages.success(request, f"Deleted: nothing more is sent to {target.target_url}.", fail_silently=True)
        return self.go_to("targets")


class RotateView(OwnerView):
    """Makes a new secret."""

    def post(self, request: HttpRequest, **_: Any) -> HttpResponse:
        """Make it, and show it this once, as that of a new target."""
        with transaction.atomic(using=events_database()):
            target = self.lock_target()
            target.rotate_secret()
        return self.show("secret", target=target, is_new=False)


class ActionView(OwnerView):
    """Does something, and says so."""

    #: What is done; what is said of it, and while nothing is sent to the target; and what if it cannot be done.
    operation: Any = None
    words = closed_words = refusal = ""

    def choose_words(self, target: WebhookTarget) -> str:
        """Return what is said of what was done: nobody shall wait for what is not sent at the moment."""
        return self.closed_words if self.closed_words and target.state in CLOSED else self.words


class TargetActionView(ActionView):
    """Does something to a target."""

    def post(self, request: HttpRequest, **_: Any) -> HttpResponse:
        """Do it, as nobody else can change the target meanwhile."""
        try:
            with transaction.atomic(using=events_database()):
                target = self.lock_target()
                self.operation(target)
                words = self.choose_words(target)
        except InvalidTarget:
            messages.error(request, self.refusal, fail_silently=True)
        else:
            messages.success(request, words, fail_silently=True)
        return self.go_to("target", self.kwargs[ID])


# -- deliveries --------------------------------------------------------------------------------------------------------


class DeliveryView(OwnerView):
    """A delivery: what is sent, each attempt, and what was answered."""

    def get(self, request: HttpRequest, **_: Any) -> HttpResponse:
        """Show it."""
        delivery = self.find_delivery()
        body = read_body(delivery)
        text = body.decode(errors="replace") if body is not None else ""
        shown = pretty(text)
        attempts = rows.attempts_of(self.owner).filter(delivery=delivery).order_by("-number")[:PAGE]
        return self.show(
            "delivery",
            delivery=delivery,
            target=delivery.target,
            reason=explain_delivery(delivery, timezone.now()),
            # A template would look for a header called "items" first.
            attempts=[
                (attempt, name_failure(attempt.error) or attempt.status_code, list(attempt.response_headers.items()))
                for attempt in attempts
            ],
            size=len(body) if body is not None else 0,
            body=text[:SHOWN],
            pretty=shown[:SHOWN],
            is_cut=max(len(text), len(shown)) > SHOWN,
        )


def read_body(delivery: Delivery) -> bytes | None:
    """Return what is sent: the event's bytes in the format that its target has now; None if nobody was sent it in that."""
    event = delivery.event
    try:
        wanted = senders.find_format_for(delivery.target, event.sender, event.payloads)
    except UnknownSender:
        return None
    body = Body.objects.using(events_database()).filter(event=event, format=wanted).first()
    return bytes(body.content) if body is not None else None


class DeliveryActionView(ActionView):
    """Does something to a delivery."""

    def post(self, request: HttpRequest, **_: Any) -> HttpResponse:
        """Do it."""
        delivery = self.find_delivery()
        try:
            self.operation(delivery, request.user)
        except (AlreadyFinished, ErasedEvent, InvalidTarget):
            messages.error(request, self.refusal, fail_silently=True)
        else:
            messages.success(request, self.choose_words(delivery.target), fail_silently=True)
        return self.go_to("delivery", delivery.uid)


def retry(delivery: Delivery, user: Any) -> None:
    """Have *delivery* tried again, as *user* wants."""
    delivery.retry(by=user, through=Through.PORTAL)


def cancel(delivery: Delivery, user: Any) -> None:
    """End *delivery* before it succeeds."""
    delivery.cancel()
