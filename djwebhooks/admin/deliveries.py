"""The admin page of deliveries: what was sent, what was answered, and what happens next."""

from typing import Any

from django.contrib import admin
from django.db.models import Max, Prefetch, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from djwebhooks import senders
from djwebhooks.admin.pages import find_event, find_target, may_touch
from djwebhooks.database import read_clock
from djwebhooks.exceptions import AlreadyFinished, UnknownSender
from djwebhooks.explain.deliveries import describe_replay, list_waits
from djwebhooks.explain.endings import ENDINGS
from djwebhooks.models import Attempt, Body, Delivery, Event, Replay, WebhookTarget
from djwebhooks.models.deliveries import COALESCED
from djwebhooks.models.events import events_database
from djwebhooks.models.replays import Through
from djwebhooks.pages import (
    COUNT_LIMIT,
    NOTHING,
    ActingAdmin,
    Done,
    ReadOnlyAdmin,
    RowAction,
    RowFilter,
    badge,
    breakable,
    folded,
    link_to,
    list_action,
    show_time,
    text_block,
    time_field,
    uids_beginning_with,
)
from djwebhooks.words import describe_count, describe_time, name_failure, pretty


def retry(delivery: Delivery, by: Any) -> Done:
    delivery.retry(by=by, through=Through.ADMIN)
    return Done("It is tried again as soon as a worker can.")


def cancel(delivery: Delivery) -> Done:
    try:
        delivery.cancel()
    except AlreadyFinished as error:
        # Which delivery it is, the page says before it.
        raise AlreadyFinished("It cannot be cancelled: it has ended already.") from error
    return Done("Cancelled.")


class EventFilter(RowFilter):
    title = "event"
    parameter_name = "event"
    model = Event


class TargetFilter(RowFilter):
    title = "target"
    parameter_name = "target"
    model = WebhookTarget


class ReplayFilter(RowFilter):
    title = "replay"
    parameter_name = "replay"
    model = Replay


class AttemptInline(admin.TabularInline):  # type: ignore[type-arg]  # not subscriptable at run time
    """Each request that was made, and its answer."""

    model = Attempt
    extra = 0
    can_delete = False
    fields = readonly_fields = ("number", "trigger", "start", "where", "outcome", "took", "response")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever sees the delivery sees its attempts."""
        return True

    @admin.display(description="when")
    def start(self, attempt: Attempt) -> str:
        return describe_time(attempt.started_at, timezone.now())

    @admin.display(description="sent to")
    def where(self, attempt: Attempt) -> SafeString:
        return format_html('{}<br><span class="quiet">{}</span>', breakable(attempt.url), attempt.address)

    @admin.display(description="answer")
    def outcome(self, attempt: Attempt) -> SafeString:
        kind = "good" if attempt.is_success else "bad"
        word = attempt.error or attempt.status_code
        return format_html('<span class="djw-badge djw-{}">{}</span><br>{}', kind, word, attempt.detail)

    @admin.display(description="took")
    def took(self, attempt: Attempt) -> SafeString:
        parts = {
            "lookup": attempt.lookup_ms,
            "connect": attempt.connect_ms,
            "TLS": attempt.tls_ms,
            "first byte": attempt.first_byte_ms,
        }
        lines = ((f"{name} {spent} ms",) for name, spent in parts.items() if spent is not None)
        return format_html("{}{}", f"{attempt.duration:.3f} s", format_html_join("", '<br><span class="quiet">{}</span>', lines))

    @admin.display(description="response")
    def response(self, attempt: Attempt) -> SafeString:
        headers = "\n".join(f"{name}: {value}" for name, value in attempt.response_headers.items())
        shown = [("headers", headers), ("body", attempt.response_body)]
        parts = [(folded(summary, text),) for summary, text in shown if text]
        return format_html_join("", "{}", parts) or SafeString(NOTHING)


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin, ActingAdmin):
    """Shows deliveries, whose event and target may be gone, and tries them again or cancels them."""

    list_display = ("event_name", "outcome", "target_url", "when")
    list_filter = ("status", EventFilter, TargetFilter, ReplayFilter)
    search_fields = ("uid",)
    search_help_text = (
        "A uid of a delivery or of an event, or its first 8 characters; a part of a target's URL; "
        f"or the beginning of an event's name, among the newest {COUNT_LIMIT:,} events."
    )
    inlines = (AttemptInline,)
    fieldsets = (
        (None, {"fields": ("event_link", "target_link", "state", "explanation", "coalesced", "replayed", "uid")}),
        ("Times", {"fields": ("created", "due", "expires", "finished")}),
        ("Request", {"fields": ("headers", "ordering_key", "body")}),
    )
    row_actions = (
        RowAction("retry", "Retry", retry, is_signed=True),
        RowAction("cancel", "Cancel", cancel, suits=lambda delivery: not delivery.is_finished),
    )
    actions = tuple(list_action(action) for action in row_actions)

    def has_act_permission(self, request: HttpRequest, row: Any = None) -> bool:
        may_change: bool = request.user.has_perm("djwebhooks.change_delivery")
        return may_change and (row is None or may_touch(request, find_target(row)))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        # Joins would lose the deliveries whose event or target is gone.
        events = Event.objects.only("uid", "name", "build_error", "build_attempts", "erased_at")
        targets = WebhookTarget.objects.defer("secrets", "headers")
        return super().get_queryset(request).prefetch_related(Prefetch("event", events), Prefetch("target", targets))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Delivery], search_term: str
    ) -> tuple[QuerySet[Delivery], bool]:
        """Find rows by what has an index, or by what there is little enough of to be looked through."""
        term = search_term.strip()
        if not term:
            return queryset, False
        bounds = uids_beginning_with(term)
        if bounds is not None:
            return queryset.filter(Q(uid__range=bounds) | Q(event__in=list_ids(Event, uid__range=bounds))), False
        newest = Event.objects.aggregate(pk=Max("pk"))["pk"] or 0
        events = list_ids(Event, pk__gt=newest - COUNT_LIMIT, name__startswith=term)
        return queryset.filter(Q(target__in=list_ids(WebhookTarget, target_url__icontains=term)) | Q(event__in=events)), False

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Newest first: within a target by its sequence, which has an index of its own."""
        return ("-sequence",) if TargetFilter.parameter_name in request.GET else ("-id",)

    # -- columns --------------------------------------------------------------------------------------------------------

    @admin.display(description="event")
    def event_name(self, delivery: Delivery) -> SafeString:
        return breakable(name_event(delivery))

    @admin.display(description="target")
    def target_url(self, delivery: Delivery) -> SafeString:
        return breakable(name_target(delivery))

    @admin.display(description="status")
    def outcome(self, delivery: Delivery) -> SafeString:
        facts = [(fact,) for fact in (name_failure(delivery.reason), describe_count(delivery.attempt_count, "attempt")) if fact]
        return format_html("{}{}", badge(delivery.status), format_html_join("", '<br><span class="quiet">{}</span>', facts))

    @admin.display(description="due or finished")
    def when(self, delivery: Delivery) -> str:
        if delivery.finished_at is not None:
            return show_time(delivery.finished_at)
        return f"due {show_time(delivery.due_at)}" if delivery.due_at is not None else "after another"

    # -- page -----------------------------------------------------------------------------------------------------------

    created = time_field("created_at", "created")
    due = time_field("due_at", "due")
    expires = time_field("expires_at", "expires")
    finished = time_field("finished_at", "finished")

    @admin.display(description="event")
    def event_link(self, delivery: Delivery) -> SafeString | str:
        event = find_event(delivery)
        return link_to(event, event) if event is not None else name_event(delivery)

    @admin.display(description="target")
    def target_link(self, delivery: Delivery) -> SafeString | str:
        target = find_target(delivery)
        return link_to(target, target) if target is not None else name_target(delivery)

    @admin.display(description="status")
    def state(self, delivery: Delivery) -> SafeString:
        return badge(delivery.status)

    @admin.display(description="why")
    def explanation(self, delivery: Delivery) -> SafeString | str:
        """Why it has ended, or why it waits."""
        if delivery.reason == COALESCED:
            newer = Delivery.objects.filter(uid=delivery.replaced_by).first()
            return link_to(newer, "a newer event has taken its place") if newer is not None else delivery.reason
        if delivery.is_finished:
            words = ENDINGS.get(delivery.reason)
            return f"{delivery.reason}: {words}" if words else delivery.reason or NOTHING
        using = events_database()
        waits = list_waits(using, delivery, find_event(delivery), find_target(delivery), read_clock(using))
        return format_html_join(SafeString("<br>"), "{}", ((sentence,) for sentence in waits))

    @admin.display(description="earlier events that it stands for")
    def coalesced(self, delivery: Delivery) -> str:
        return str(delivery.coalesced_count) if delivery.coalesced_count else NOTHING

    @admin.display(description="sent again")
    def replayed(self, delivery: Delivery) -> SafeString | str:
        """Who wanted it sent again last."""
        if delivery.replay_id is None:
            return NOTHING
        replay = Replay.objects.filter(pk=delivery.replay_id).first()
        words = describe_replay(replay, timezone.now())
        return link_to(replay, words) if replay is not None else words

    @admin.display(description="identifying headers")
    def headers(self, delivery: Delivery) -> SafeString:
        event = find_event(delivery)
        lines = [
            f"webhook-id: {event.uid if event is not None else 'of ' + name_event(delivery)}",
            f"webhook-sequence: {delivery.sequence}",
            f"webhook-attempt: {delivery.attempt_count} (the last)" if delivery.attempt_count else "webhook-attempt: none yet",
        ]
        return text_block("\n".join(lines))

    @admin.display(description="body")
    def body(self, delivery: Delivery) -> SafeString:
        event = find_event(delivery)
        if event is not None and event.erased_at is not None:
            return SafeString("erased")
        bodies = list_bodies(delivery)
        if not bodies:
            return SafeString("not written yet: that is done before the first attempt")
        parts = []
        for body in bodies:
            text = bytes(body.content).decode(errors="replace")
            title = f"{len(body.content)} bytes, as {describe_type(body.format)} in the format {body.format}"
            parts.append((title, text_block(pretty(text)), folded("exactly as sent", text)))
        return format_html_join("", "<p>{}</p>{}{}", parts)


def list_ids(model: type[Event | WebhookTarget], **conditions: Any) -> list[int]:
    """Return the ids of rows, so that the index on them finds their deliveries: beside an OR, that of a subquery does not."""
    ids: QuerySet[Any, int] = model._default_manager.filter(**conditions).order_by().values_list("pk", flat=True)
    return list(ids[:COUNT_LIMIT])


def name_event(delivery: Delivery) -> str:
    event = find_event(delivery)
    return event.name if event is not None else f"deleted event #{delivery.event_id}"


def name_target(delivery: Delivery) -> str:
    target = find_target(delivery)
    return target.target_url if target is not None else f"deleted target #{delivery.target_id}"


def list_bodies(delivery: Delivery) -> list[Body]:
    """Return what is sent: the event's bytes in the target's format, or in all formats when that is not known."""
    bodies = list(Body.objects.filter(event_id=delivery.event_id).order_by("format"))
    target = find_target(delivery)
    if target is None:
        return bodies
    event = find_event(delivery)
    sender, versions = (event.sender, event.payloads) if event is not None else ("", {})
    try:
        wanted = senders.find_format_for(target, sender, versions)
    except UnknownSender:
        return bodies
    return [body for body in bodies if body.format == wanted] or bodies


def describe_type(body_format: str) -> str:
    try:
        return senders.content_type(body_format)
    except UnknownSender:
        return "an unknown type"
