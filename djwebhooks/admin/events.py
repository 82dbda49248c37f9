"""The admin page of events: what happened, and what became of it."""

from typing import Any

from django.contrib import admin
from django.db.models import BooleanField, Count, ExpressionWrapper, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from djwebhooks.admin.pages import name_owner
from djwebhooks.erasure import erase_events
from djwebhooks.models import Delivery, Event
from djwebhooks.models.deliveries import Status
from djwebhooks.models.events import BUILD_TRIES
from djwebhooks.pages import (
    NOTHING,
    ActingAdmin,
    Done,
    ReadOnlyAdmin,
    RowAction,
    WordFilter,
    badge,
    breakable,
    folded,
    link_to,
    link_to_list,
    list_action,
    read_uuid,
    text_block,
    time_field,
    titled,
)
from djwebhooks.versions import CURRENT
from djwebhooks.words import describe_count, pretty

#: What lists leave in the database: it is large, or nobody's business.
LARGE = ("call", "payload", "versions", "target_ids", "subjects", "build_error")
TIMES = ("created", "planned", "expires", "dispatched", "erased")
#: An error is kept until the payload is there in all its versions.
HAS_ERROR = ~Q(build_error="")
UNBUILT = Q(build_attempts__gte=BUILD_TRIES, erased_at__isnull=True) & (Q(payload="") | HAS_ERROR)
FAILING = Q(build_attempts__range=(1, BUILD_TRIES - 1), erased_at__isnull=True) & HAS_ERROR
PROGRESS = {
    "waiting": Q(dispatched_at__isnull=True),
    "dispatched": Q(dispatched_at__isnull=False),
    "build failing": FAILING,
    "build failed": UNBUILT,
    "erased": Q(erased_at__isnull=False),
}


def erase(event: Event) -> Done:
    erased = erase_events(Event.objects.filter(pk=event.pk))
    return Done(f"Erased, with the answers to {describe_count(erased.attempts, 'attempt')}.")


class ProgressFilter(WordFilter):
    title = parameter_name = "progress"
    conditions = PROGRESS


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin, ActingAdmin):
    """Shows events. The captured call stays hidden: it may hold whatever an argument has, a user's password hash included."""

    list_display = ("breakable_name", "owner_name", "identifier", "progress", "created", "dispatched")
    list_select_related = ("owner",)
    list_filter = (ProgressFilter, ("is_broadcast", titled("broadcast")))
    search_fields = ("name",)
    search_help_text = "An event's uid, or the beginning of its name."
    fieldsets = (
        (None, {"fields": ("name", "uid", "owner_link", "identifier", "is_broadcast", "ordering_key", "idempotency_key")}),
        ("Progress", {"fields": ("progress", "deliveries", "coalesce", *TIMES)}),
        (
            "Payload",
            {"fields": ("hook", "version", "sender", "build_attempts", "build_due", "build_error_text", "payload_text")},
        ),
    )

    row_actions = (
        RowAction(
            "erase",
            "Erase",
            erase,
            suits=lambda event: event.erased_at is None,
            question="Payloads and answers are erased for good, and what was not delivered yet is cancelled. "
            "That there were these events stays on record.",
        ),
    )
    actions = tuple(list_action(action) for action in row_actions)

    def has_act_permission(self, request: HttpRequest, row: Any = None) -> bool:
        return request.user.has_perm("djwebhooks.erase_event")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        has_failed, is_failing = (ExpressionWrapper(condition, BooleanField()) for condition in (UNBUILT, FAILING))
        events: QuerySet[Event] = super().get_queryset(request)
        return events.defer(*LARGE).annotate(has_failed=has_failed, is_failing=is_failing)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Event], search_term: str
    ) -> tuple[QuerySet[Event], bool]:
        uid = read_uuid(search_term)
        found = Q(uid=uid) if uid else Q(name__startswith=search_term.strip())
        return queryset.filter(found), False

    @admin.display(description="owner")
    def owner_name(self, event: Event) -> str:
        return name_owner(event)

    @admin.display(description="owner")
    def owner_link(self, event: Event) -> SafeString | str:
        event = Event.objects.select_related("owner").only("owner").get(pk=event.pk)
        return link_to(event.owner, name_owner(event)) if event.owner is not None else name_owner(event)

    @admin.display(description="progress")
    def progress(self, event: Event) -> SafeString:
        if event.erased_at is not None:
            return badge("erased")
        if event.has_failed:  # type: ignore[attr-defined]  # annotated by get_queryset
            return badge("build failed")
        if event.is_failing:  # type: ignore[attr-defined]  # annotated by get_queryset
            return badge("build failing")
        if event.dispatched_at is not None:
            return badge("dispatched")
        is_planned = event.deliver_at is not None and event.deliver_at > timezone.now()
        return badge("planned" if is_planned else "waiting")

    created = time_field("created_at", "created")
    planned = time_field("deliver_at", "planned for")
    expires = time_field("expires_at", "expires")
    dispatched = time_field("dispatched_at", "dispatched")
    erased = time_field("erased_at", "erased")
    build_due = time_field("build_due_at", "build due")

    @admin.display(description="name")
    def breakable_name(self, event: Event) -> SafeString:
        return breakable(event.name)

    @admin.display(description="deliveries")
    def deliveries(self, event: Event) -> SafeString:
        counts = Delivery.objects.filter(event=event).order_by().values_list("status").annotate(Count("pk"))
        if not counts:
            return SafeString("none: nobody wants it" if event.dispatched_at is not None else "none yet")
        by_status = dict(counts)
        parts = [
            (badge(status), link_to_list(Delivery, by_status[status], event=event.pk, status__exact=status))
            for status in Status.values
            if status in by_status
        ]
        total = link_to_list(Delivery, f"all {sum(by_status.values())}", event=event.pk)
        return format_html("{} · {}", format_html_join(" · ", "{} {}", parts), total)

    @admin.display(description="payload")
    def payload_text(self, event: Event) -> SafeString:
        current = text_block(pretty(event.payload)) if event.payload else SafeString(NOTHING)
        others = [
            (folded(f"in version {version}", pretty(text)) if text is not None else f"in version {version}: not built",)
            for version, text in event.payloads.items()
            if version != CURRENT
        ]
        return format_html("{}{}", current, format_html_join("", "<div>{}</div>", others))

    @admin.display(description="last build error")
    def build_error_text(self, event: Event) -> SafeString:
        return text_block(event.build_error)
