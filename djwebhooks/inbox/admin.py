"""The admin page of messages: what came, what has become of it, and a way to have it handled again."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from djwebhooks.conf import conf
from djwebhooks.inbox.feed import fetch_missing, list_feeds
from djwebhooks.inbox.gaps import find_gaps
from djwebhooks.inbox.models import Message, Status
from djwebhooks.pages import (
    COUNT_LIMIT,
    NOTHING,
    ActingAdmin,
    Done,
    ReadOnlyAdmin,
    RowAction,
    WordFilter,
    badge,
    folded,
    list_action,
    show_time,
    text_block,
)
from djwebhooks.words import pretty

#: Characters of a body that are shown.
SHOWN = 64 * 1024
#: Characters of an id that a list has room for.
SHORT_ID = 8
#: Gaps that are listed above the messages.
SHOWN_GAPS = 5
#: Pages that a click asks each feed for: somebody waits.
ASKED_PAGES = 5


def replay(message: Message) -> Done:
    message.replay()
    return Done("Its handlers will run again." if message.finished_at else "Its handlers will run now.")


class StatusFilter(WordFilter):
    title = parameter_name = "status"
    conditions = {
        "to be retried": Q(status=Status.NEW, attempt_count__gt=0),
        **{status: Q(status=status) for status in Status.values},
    }


class SourceFilter(admin.SimpleListFilter):
    """By the sources of the settings: to look for all that have ever been would read the whole table."""

    title = parameter_name = "source"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in conf.INBOX]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.value() is None else queryset.filter(source=self.value())


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin, ActingAdmin):
    """Shows messages. Only their handlers and djwebhooks change them."""

    list_display = ("received", "source", "event_name", "state", "attempt_count", "short_id")
    list_filter = (StatusFilter, SourceFilter, "received_at")
    search_fields = ("message_id",)
    search_help_text = "A message's id, or the name of an event."
    fieldsets = (
        (None, {"fields": ("source", "message_id", "event_name", "state", "explanation")}),
        ("Handlers", {"fields": ("attempt_count", "next_attempt", "finished", "error_text")}),
        ("Request", {"fields": ("received", "remote_address", "sequence", "headers_text", "body_text")}),
    )
    row_actions = (
        RowAction(
            "replay",
            "Replay",
            replay,
            suits=lambda message: message.status != Status.REJECTED and message.erased_at is None,
            question="The handlers run again. What those of a processed message did has happened already, and happens once more.",
        ),
    )
    actions = tuple(list_action(action) for action in row_actions)

    class Media:
        extend = False
        css = {"all": ["djwebhooks_inbox/admin.css"]}

    def has_act_permission(self, request: HttpRequest, row: Any = None) -> bool:
        return request.user.has_perm("djwebhooks_inbox.replay_message")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        messages: QuerySet[Message] = super().get_queryset(request)
        return messages.defer("body", "headers", "error")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Message], search_term: str
    ) -> tuple[QuerySet[Message], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        # With the sources, the index on both finds it.
        found = queryset.filter(source__in=list(conf.INBOX), message_id=term)
        return (found if found.exists() else queryset.filter(event=term)), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        fetch_url = reverse(f"admin:{FETCH_URL}") if self.has_fetch_permission(request) and list_feeds() else ""
        return super().changelist_view(request, {"gaps": describe_gaps(), "fetch_url": fetch_url, **(extra_context or {})})

    def has_fetch_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("djwebhooks_inbox.fetch_message")

    def get_urls(self) -> list[URLPattern]:
        return [path("fetch/", self.admin_site.admin_view(self.fetch_view), name=FETCH_URL), *super().get_urls()]

    def fetch_view(self, request: HttpRequest) -> HttpResponse:
        """Ask every feed for what is missing, and tell what came of it."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_fetch_permission(request):
            raise PermissionDenied
        for name in list_feeds():
            fetched = fetch_missing(name, pages=ASKED_PAGES)
            level = messages.ERROR if fetched.error else messages.SUCCESS if fetched.stored else messages.INFO
            self.message_user(request, f"Source {name}: {' '.join(fetched.describe())}", level)
        return HttpResponseRedirect(reverse("admin:djwebhooks_inbox_message_changelist"))

    @admin.display(description="message id")
    def short_id(self, message: Message) -> str:
        text = message.message_id
        return text if len(text) <= SHORT_ID + 1 else f"…{text[-SHORT_ID:]}"

    @admin.display(description="event")
    def event_name(self, message: Message) -> str:
        return message.event or NOTHING

    @admin.display(description="status")
    def state(self, message: Message) -> SafeString:
        return badge(message.status)

    @admin.display(description="received")
    def received(self, message: Message) -> str:
        return show_time(message.received_at)

    @admin.display(description="finished")
    def finished(self, message: Message) -> str:
        return show_time(message.finished_at)

    @admin.display(description="next attempt")
    def next_attempt(self, message: Message) -> str:
        return show_time(message.due_at)

    @admin.display(description="that is")
    def explanation(self, message: Message) -> str:
        if message.erased_at is not None:
            return f"What it said was erased at {show_time(message.erased_at)}."
        if message.status == Status.NEW and message.attempt_count:
            return "Its handlers have failed, or their worker has died, and are to run again."
        return EXPLANATIONS[Status(message.status)]

    @admin.display(description="last error")
    def error_text(self, message: Message) -> SafeString:
        return text_block(message.error)

    @admin.display(description="headers")
    def headers_text(self, message: Message) -> SafeString:
        return text_block("\n".join(f"{name}: {value}" for name, value in sorted(message.headers.items())))

    @admin.display(description="body")
    def body_text(self, message: Message) -> SafeString:
        body = bytes(message.body)
        text = body[:SHOWN].decode(errors="backslashreplace")
        if not text:
            return SafeString(NOTHING)
        shown = pretty(text)
        size = f"{len(body):,} bytes" + ("" if len(body) <= SHOWN else f", of which the first {SHOWN:,} are shown")
        as_it_came = folded("As it came", text) if shown != text else ""
        return format_html('<div class="djw-body">{}<p class="help">{}</p>{}</div>', text_block(shown), size, as_it_came)


#: The name of the address that feeds are asked by.
FETCH_URL = "djwebhooks_inbox_message_fetch"

#: What each status means.
EXPLANATIONS = {
    Status.NEW: "Its handlers are to run.",
    Status.PROCESSED: "All of its handlers have run.",
    Status.FAILED: "Its handlers have failed, or their worker has died, at every attempt. Mend them, and replay it.",
    Status.IGNORED: "No handler wants it.",
    Status.REJECTED: "It had no valid signature, so nobody knows who sent it, and no handler runs for it.",
}


def describe_gaps() -> list[str]:
    """Say which numbers of which sources are missing, as far as there is room."""
    gaps = find_gaps(limit=SHOWN_GAPS + 1, newest=COUNT_LIMIT)
    lines = [f"{gap.source}: {gap} missing, noticed {show_time(gap.noticed_at)}" for gap in gaps[:SHOWN_GAPS]]
    return [*lines, "… and more"] if len(gaps) > SHOWN_GAPS else lines
