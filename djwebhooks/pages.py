"""What the admin pages share: lists that stay fast, actions on rows, badges and readable texts."""

import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from djwebhooks.exceptions import DjWebhooksError

#: Rows of a list that are counted, and so can be paged through, at most.
COUNT_LIMIT = 10_000
#: Rows that one use of an action changes at most: a form can name them all, as Django reads 1000 fields of one.
ACTION_LIMIT = 900
#: Rows that are listed where people are asked.
ASK_LIMIT = 20
#: Columns that hold secrets, or may.
HIDDEN = frozenset({"secrets", "headers", "authentication", "client_certificate", "access_token", "call"})
#: What a missing value looks like.
NOTHING = "–"
#: Enough digits of a uid to search for it: a whole one, or the beginning of one of ours; and the first and the last of these.
UID_BEGINNING = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8,12}|[0-9a-f]{12}7([0-9a-f]{0,3}|[0-9a-f]{3}[89ab][0-9a-f]{0,14})")
FIRST_UID, LAST_UID = "0" * 12 + "7000" + "8000" + "0" * 12, "f" * 12 + "7fff" + "bfff" + "f" * 12
#: After these a line may be broken: between the parts of an address or of a name.
BREAKS = re.compile(r"(?<=[^:/]/)|(?<=[.?&])")
#: The colour of each status and state.
COLOURS = {
    "succeeded": "good", "healthy": "good", "dispatched": "good", "processed": "good",
    "degraded": "warning", "suspended": "warning", "expired": "warning", "build failing": "warning",
    "failed": "bad", "disabled": "bad", "build failed": "bad", "rejected": "bad",
}  # fmt: skip


# -- words -------------------------------------------------------------------------------------------------------------


def badge(word: str) -> SafeString:
    """Show a status or a state in its colour."""
    return format_html('<span class="djw-badge djw-{}">{}</span>', COLOURS.get(word, "quiet"), word)


def text_block(text: str) -> SafeString:
    """Show a text with its line breaks, as it is."""
    return format_html('<pre class="djw-text">{}</pre>', text) if text else SafeString(NOTHING)


def folded(summary: str, text: str) -> SafeString:
    """Show a text that is unfolded by a click."""
    return format_html("<details><summary>{}</summary>{}</details>", summary, text_block(text))


def show_time(at: datetime | None) -> str:
    """Show a time to the second: Django's own formats leave them out."""
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S}" if at is not None else NOTHING


def time_field(name: str, description: str) -> Callable[[Any, Any], str]:
    """Return what shows the time in the field *name* as ``show_time`` does, in a list or on a page."""

    @admin.display(description=description)
    def show(model_admin: Any, row: Model) -> str:
        return show_time(getattr(row, name))

    return show


def breakable(text: str) -> SafeString:
    """Show an address or a name, with the places where its line may be broken."""
    return format_html_join(SafeString("<wbr>"), "{}", ((part,) for part in BREAKS.split(text)))


def link_to(row: Model, text: object) -> SafeString:
    """Link to a row's own admin page, if it has one."""
    return _link(row, "change", text, args=[quote(row.pk)])


def link_to_list(model: type[Model], text: object, **query: object) -> SafeString:
    """Link to a list, filtered by *query*, if the model has one."""
    return _link(model, "changelist", text, query=query)


def _link(model: type[Model] | Model, page: str, text: object, **where: Any) -> SafeString:
    try:
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", **where)
    except NoReverseMatch:
        return format_html("{}", text)
    return format_html('<a href="{}">{}</a>', url, text)


def read_uuid(text: str) -> uuid.UUID | None:
    """Return the UUID that somebody wrote; None if it is none."""
    try:
        return uuid.UUID(text.strip())
    except ValueError:
        return None


def uids_beginning_with(text: str) -> tuple[uuid.UUID, uuid.UUID] | None:
    """Return the first and the last uid that begins with *text*; None if it is no beginning of one of ours, or a short one.

    Ours are of version 7. MariaDB sorts other versions in another way, so of those only a whole one is known.
    """
    digits = text.lower().replace("-", "")
    if not UID_BEGINNING.fullmatch(digits):
        return None
    first, last = (uuid.UUID(digits + template[len(digits) :]) for template in (FIRST_UID, LAST_UID))
    return first, last


def words_of(error: DjWebhooksError) -> str:
    """Return an error's message; those of validation come in lists."""
    return " ".join(getattr(error, "messages", None) or [str(error)])


# -- lists -------------------------------------------------------------------------------------------------------------


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # not subscriptable at run time
    """Counts no more rows than a limit, so that a million of them cost no more."""

    limit = COUNT_LIMIT

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Model] = self.object_list  # type: ignore[assignment]  # the admin's lists are querysets
        return rows.order_by()[: self.limit].count()

    @property
    def is_cut(self) -> bool:
        """Whether there may be more rows than those that can be paged through."""
        return self.count == self.limit


class RowFilter(admin.SimpleListFilter):
    """Filters a list by the row of another model that a link has chosen; shown only then."""

    model: type[Model]

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        value = self.value()
        if value is None:
            return []
        row = self.model._base_manager.filter(pk=self.pk()).first()
        return [(value, str(row or f"deleted {self.title} #{value}"))]

    def pk(self) -> int:
        value = str(self.value())
        if not value.isascii() or not value.isdecimal() or len(value) > 18:
            raise IncorrectLookupParameters(f"{value!r} is not the number of an {self.title}.")
        return int(value)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.value() is None else queryset.filter(**{self.parameter_name or "": self.pk()})


class WordFilter(admin.SimpleListFilter):
    """Filters a list by words, each of which stands for a condition."""

    conditions: Mapping[str, Q]

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [(word, word) for word in self.conditions]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(self.conditions.get(self.value() or "", Q()))


def titled(title: str) -> type[admin.BooleanFieldListFilter]:
    """Return a filter by yes and no that is called *title*."""

    class TitledFilter(admin.BooleanFieldListFilter):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.title = title

    return TitledFilter


class LeanAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not subscriptable at run time
    """A list that neither counts nor sorts all of its rows."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    ordering = ("-id",)
    empty_value_display = NOTHING

    class Media:
        css = {"all": ["djwebhooks/admin.css"]}

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Refuse to filter by what the pages hide, as it could be guessed so, and by what a database cannot hold."""
        if HIDDEN.intersection(lookup.split("__")) or "\0" in lookup + value:
            return False
        return super().lookup_allowed(lookup, value, request)


# -- actions -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """What an action did to one row: a sentence that may be logged, and a secret that must not be."""

    words: str
    secret: str = field(default="", repr=False)
    #: What to look at next.
    link: SafeString = SafeString("")  # noqa: RUF009 (a string, immutable)


@dataclass(frozen=True, slots=True)
class RowAction:
    """What people may do with a row: a button on its page, and an action of the list."""

    name: str
    label: str
    #: Does it; raises ``DjWebhooksError`` when it cannot be done.
    run: Callable[..., Done]
    #: Whether a row's page offers it.
    suits: Callable[[Any], bool] = lambda row: True
    #: Whether it is told who does it, as *by*.
    is_signed: bool = False
    #: What people are asked before it is done, as it cannot be undone.
    question: str = ""
    #: Who may run it: whom the admin's ``has_…_permission`` of this name lets.
    permission: str = "act"


class ActingAdmin(LeanAdmin):
    """Rows that people may act on, one on its own page or many in the list."""

    row_actions: tuple[RowAction, ...] = ()

    def has_act_permission(self, request: HttpRequest, row: Any = None) -> bool:
        """Whether the user may run the actions, on *row* or at all."""
        return self.has_change_permission(request, row)

    def may_run(self, request: HttpRequest, action: RowAction, row: Any) -> bool:
        """Whether the user may run *action* on *row*."""
        return bool(getattr(self, f"has_{action.permission}_permission")(request, row))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.act_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_act"
        return [path("<path:object_id>/act/<slug:name>/", view, name=name), *super().get_urls()]

    def act_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """Run the action *name* on one row: a button's form is posted here."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        row = self.get_object(request, unquote(object_id))
        action = next((action for action in self.row_actions if action.name == name), None)
        if row is None or action is None:
            raise Http404(f"There is no {self.opts.verbose_name} {object_id}, or nothing called {name!r} to do with it.")
        if not self.may_run(request, action, row):
            raise PermissionDenied
        page = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[quote(row.pk)])
        return self.act_on(request, [row], action) or HttpResponseRedirect(page)

    def act_on(self, request: HttpRequest, rows: Iterable[Any], action: RowAction) -> HttpResponse | None:
        """Run an action on rows, log and tell what came of it; return a page if there is something to ask, or secrets to show."""
        if action.question and "confirmed" not in request.POST:
            return self.ask(request, list(rows), action)
        done: list[tuple[Any, Done]] = []
        for row in rows:
            if not self.may_run(request, action, row):
                self.message_user(request, f"{row}: you do not have the permission.", messages.ERROR)
                continue
            try:
                result = action.run(row, by=request.user) if action.is_signed else action.run(row)
            except DjWebhooksError as error:
                self.message_user(request, f"{row}: {words_of(error)}", messages.ERROR)
                continue
            self.log_change(request, row, result.words)
            done.append((row, result))
        if any(result.secret for _, result in done):
            return self.show_secrets(request, done)
        self._tell(request, action, done)
        return None

    def ask(self, request: HttpRequest, rows: list[Any], action: RowAction) -> HttpResponse:
        """Ask whether *action* is meant; to say yes is to post these rows, whichever the list has chosen by then."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"{action.label}: are you sure?",
            "opts": self.opts,
            "media": self.media,
            "action": action,
            "rows": rows[:ASK_LIMIT],
            "more": max(0, len(rows) - ASK_LIMIT),
            "posted": [("action", action.name), *((ACTION_CHECKBOX_NAME, row.pk) for row in rows)],
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, f"admin/{self.opts.app_label}/confirm.html", context)

    def _tell(self, request: HttpRequest, action: RowAction, done: list[tuple[Any, Done]]) -> None:
        if len(done) == 1:
            result = done[0][1]
            self.message_user(request, format_html("{} {}", result.words, result.link))
        elif done:
            self.message_user(request, f"{action.label}: done for {len(done)} {self.opts.verbose_name_plural}.")

    def show_secrets(self, request: HttpRequest, done: list[tuple[Any, Done]]) -> HttpResponse:
        """Show new secrets in the answer itself: a message would pass through a cookie or the session's table."""
        context = {
            **self.admin_site.each_context(request),
            "title": "New secret" if len(done) == 1 else "New secrets",
            "opts": self.opts,
            # Not the secrets themselves: the report of an error shows what variables hold.
            "done": done,
        }
        request.current_app = self.admin_site.name  # Links lead to this site, should there be several.
        return TemplateResponse(request, "admin/djwebhooks/secrets.html", context)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> HttpResponse:
        row = context.get("original")
        if row is not None and self.has_act_permission(request, row):
            mine = [action for action in self.row_actions if self.may_run(request, action, row)]
            context["row_actions"] = [action for action in mine if action.suits(row)]
            context["act_url_name"] = f"admin:{self.opts.app_label}_{self.opts.model_name}_act"
        return super().render_change_form(request, context, *args, **kwargs)


def list_action(action: RowAction) -> Callable[[Any, HttpRequest, QuerySet[Any]], HttpResponse | None]:
    """Return *action* as an action of the list."""

    @admin.action(description=action.label, permissions=[action.permission])
    def run(model_admin: ActingAdmin, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        # SQLite cannot prefetch for so many.
        rows = list(queryset.prefetch_related(None)[: ACTION_LIMIT + 1])
        if len(rows) > ACTION_LIMIT:
            refuse_so_many(model_admin, request, ACTION_LIMIT)
            return None
        return model_admin.act_on(request, rows, action)

    run.__name__ = action.name
    return run


def refuse_so_many(model_admin: Any, request: HttpRequest, limit: int) -> None:
    """Say that an action of the list takes no more than *limit* rows."""
    model_admin.message_user(request, f"Choose at most {limit} at once; nothing was done.", messages.ERROR)


class ReadOnlyAdmin(LeanAdmin):
    """Rows that only djwebhooks writes, as editing them would lie about what happened."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
