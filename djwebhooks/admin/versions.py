"""The admin page that shows what another version of the payloads would change for a target, and switches to it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from djwebhooks.exceptions import InvalidTarget
from djwebhooks.models import Delivery, Event, WebhookTarget
from djwebhooks.models.events import events_database
from djwebhooks.pages import ActingAdmin, link_to, show_time, words_of
from djwebhooks.versions import CURRENT, choose_version
from djwebhooks.words import pretty

#: The newest deliveries of a target that are looked at, and the lines of a payload that are compared.
LOOKED_AT, MOST_LINES = 100, 2000
#: Lines that are shown before and after those that differ.
CONTEXT = 3


@dataclass(frozen=True, slots=True)
class Line:
    """A line of both payloads, side by side: *kind* is ``same``, ``changed`` or ``gap``, where equal ones are left out."""

    kind: str
    old: str | None = None
    new: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One event in two versions."""

    name: str
    link: SafeString
    lines: list[Line]
    is_cut: bool


@dataclass(slots=True)
class Preview:
    """A target's newest events in another version, one of each name; and the names of those that do not have it."""

    comparisons: list[Comparison] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    #: The names of the versions that any of them has.
    versions: set[str] = field(default_factory=set)


def compare(old: str, new: str) -> list[Line]:
    """Lay two texts side by side, as far as they differ."""
    left, right = old.splitlines()[:MOST_LINES], new.splitlines()[:MOST_LINES]
    lines: list[Line] = []
    end = 0
    for group in SequenceMatcher(None, left, right, autojunk=False).get_grouped_opcodes(CONTEXT):
        if group[0][1] > end:
            lines.append(Line("gap"))
        for kind, start, stop, new_start, new_stop in group:
            pairs = zip_longest(left[start:stop], right[new_start:new_stop])
            lines += [Line("same" if kind == "equal" else "changed", *pair) for pair in pairs]
        end = group[-1][2]
    return [*lines, Line("gap")] if lines and end < len(left) else lines


def preview(target: WebhookTarget, version: str) -> Preview:
    """Compare what *target* got of its newest events with what it would have got in *version*."""
    found = Preview()
    names: set[str] = set()
    for event in _read_newest(target):
        payloads = event.payloads
        found.versions |= {*payloads, event.version} - {CURRENT}
        before = payloads[choose_version(target.version, payloads)]
        after = payloads[choose_version(version, payloads)]
        if event.name in names or before is None or after is None:
            continue
        names.add(event.name)
        if version in (CURRENT, event.version) or version in payloads:
            found.comparisons.append(_compare_event(event, pretty(before), pretty(after)))
        else:
            found.others.append(event.name)
    return found


def _read_newest(target: WebhookTarget) -> Iterator[Event]:
    using = events_database()
    newest = Delivery.objects.using(using).filter(target=target).order_by("-sequence").values_list("event_id", flat=True)
    events = Event.objects.using(using).filter(pk__in=list(newest[:LOOKED_AT]), erased_at__isnull=True)
    shown = events.only("uid", "name", "created_at", "payload", "version", "versions")
    return shown.order_by("-pk").iterator(chunk_size=10)


def _compare_event(event: Event, before: str, after: str) -> Comparison:
    is_cut = max(before.count("\n"), after.count("\n")) >= MOST_LINES
    return Comparison(event.name, link_to(event, show_time(event.created_at)), compare(before, after), is_cut)


class VersionsAdmin(ActingAdmin):
    """Targets, and the page that shows what another version would change for one of them."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.versions_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_versions"
        return [path("<path:object_id>/versions/", view, name=name), *super().get_urls()]

    def versions_link(self, target: WebhookTarget) -> SafeString:
        """Link to the page."""
        url = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_versions", args=[quote(target.pk)])
        return format_html('<a href="{}">Preview another version…</a>', url)

    def versions_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what a version would change; who posts it switches to it."""
        target = self.get_object(request, unquote(object_id))
        if target is None:
            raise Http404(f"There is no {self.opts.verbose_name} {object_id}.")
        if not self.has_change_permission(request, target):
            raise PermissionDenied
        if request.method == "POST":
            return self._switch(request, target, request.POST.get("version", CURRENT))
        return self._show(request, target)

    def _switch(self, request: HttpRequest, target: WebhookTarget, version: str) -> HttpResponse:
        before, target.version = target.version, version
        try:
            target.clean()
            with transaction.atomic(using=events_database()):
                target.lock_row(events_database())
                target.save(update_fields=["version", "modified_at"])
        except InvalidTarget as error:
            self.message_user(request, words_of(error), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        words = f"Switched from {describe(before)} to {describe(version)}: whatever is sent from now on is in it."
        self.log_change(request, target, words)
        self.message_user(request, words)
        return HttpResponseRedirect(reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[target.pk]))

    def _show(self, request: HttpRequest, target: WebhookTarget) -> HttpResponse:
        asked = request.GET.get("version")
        found = preview(target, target.version if asked is None else asked)
        choices = [version for version in (CURRENT, *sorted(found.versions, reverse=True)) if version != target.version]
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": "Preview another version",
            "subtitle": str(target),
            "opts": self.opts,
            "media": self.media,
            "target": target,
            "choices": [(version, describe(version)) for version in choices],
            "asked": asked,
            "before": describe(target.version),
            "after": describe(asked) if asked is not None else "",
            "found": found,
            "may_see": request.user.has_perm("djwebhooks.view_event"),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/djwebhooks/versions.html", context)


def describe(version: str) -> str:
    """Name a version to people."""
    return f"version {version}" if version else "the current version"
