"""The admin page of targets: where webhooks go, how they fare, and what can be done about it."""

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.apps import apps
from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.debug import sensitive_post_parameters

from djwebhooks.admin.pages import SYSTEM_PERMISSION, may_touch, name_owner
from djwebhooks.admin.replays import ADD_URL, ReplayAdmin
from djwebhooks.admin.target_forms import COLUMNS, SECRET_FIELDS, SubscriptionFormSet, SystemTargetForm, TargetForm
from djwebhooks.admin.versions import VersionsAdmin
from djwebhooks.database import ExactCharField, read_clock
from djwebhooks.exceptions import DeletedTarget, DjWebhooksError, UndecryptableSecret
from djwebhooks.explain.targets import list_holds, list_troubles
from djwebhooks.models import Delivery, Replay, Subscription, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.models.events import events_database
from djwebhooks.models.keyring import KeyState
from djwebhooks.models.operation import STATES
from djwebhooks.models.replays import MOST_TARGETS, Through
from djwebhooks.owners import owner_model
from djwebhooks.pages import (
    NOTHING,
    Done,
    RowAction,
    WordFilter,
    badge,
    breakable,
    link_to,
    link_to_list,
    list_action,
    refuse_so_many,
    show_time,
    time_field,
    titled,
    words_of,
)

#: What is known of a receiver by ``accepts_unknown_keys``.
VERIFICATION = {
    None: "It is not known whether the receiver verifies signatures: check the keys.",
    False: "The receiver refuses what it cannot verify.",
    True: "The receiver accepts what it cannot have verified: anybody may send to it in your name.",
}
#: Events of a target that a list has room for.
SHOWN_EVENTS = 3
#: For how long an old secret signs beside its successor.
OVERLAP_HOURS = 24


# -- actions -----------------------------------------------------------------------------------------------------------


def send_test(target: WebhookTarget) -> Done:
    event = target.send_test()
    return Done(f"Fired the test event {event.uid}.", link=link_to(event, "See what becomes of it"))


def resume(target: WebhookTarget) -> Done:
    target.resume()
    return Done("Resumed: what was held is sent, at a rising rate.")


def probe(target: WebhookTarget) -> Done:
    target.probe()
    return Done("One request is sent as soon as a worker can; if it succeeds, the rest follows.")


def pause(target: WebhookTarget) -> Done:
    target.pause()
    return Done("Paused: events are held until it is resumed.")


def rotate_secret(target: WebhookTarget) -> Done:
    words = f"Rotated the secret: the old one signs as well for {OVERLAP_HOURS} hours."
    return Done(words, target.rotate_secret(overlap=OVERLAP_HOURS * 3600))


def check_keys(target: WebhookTarget) -> Done:
    target.check_keys()
    link = link_to_list(Delivery, "See what is answered", target=target.pk)
    return Done("Fired two events: one that only the newest key signs, and one that no key of the receiver's can.", link=link)


def finish_rotation(target: WebhookTarget) -> Done:
    target.finish_rotation()
    return Done("Finished the rotation: the newest key signs alone.")


def read_keys(target: WebhookTarget) -> list[KeyState]:
    """Return the target's keys, none when they cannot be read."""
    try:
        return target.keys
    except DjWebhooksError:
        return []


def retry_failed(target: WebhookTarget, by: Any) -> Done:
    count = target.replay(by=by, through=Through.ADMIN)
    link = link_to_list(Delivery, "See the deliveries", target=target.pk)
    return Done(f"Failed deliveries that are sent again: {count}.", link=link)


@admin.action(description="Replay deliveries…", permissions=["replay"])
def replay(model_admin: Any, request: HttpRequest, queryset: QuerySet[WebhookTarget]) -> HttpResponse | None:
    """Show the form of a replay for the chosen targets."""
    uids = [str(uid) for uid in queryset.values_list("uid", flat=True)[: MOST_TARGETS + 1]]
    if len(uids) > MOST_TARGETS:
        refuse_so_many(model_admin, request, MOST_TARGETS)
        return None
    replays: ReplayAdmin = model_admin.admin_site.get_model_admin(Replay)
    return replays.show_form(request, QueryDict(urlencode({"targets": " ".join(uids)})))


# -- the events --------------------------------------------------------------------------------------------------------


class SubscriptionInline(admin.TabularInline):  # type: ignore[type-arg]  # not subscriptable at run time
    """The events that a target wants: whoever may change the target may change them."""

    model = Subscription
    formset = SubscriptionFormSet
    extra = 1
    formfield_overrides = {ExactCharField: {"widget": forms.TextInput(attrs={"class": "vLargeTextField", "aria-label": "event"})}}
    verbose_name = "event"
    verbose_name_plural = "events: a name, project.* for all below it, or * for all"

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._targets().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        targets = self._targets()
        return targets.has_add_permission(request) if obj is None else targets.has_change_permission(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._targets().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._targets().has_change_permission(request, obj)

    def _targets(self) -> "WebhookTargetAdmin":
        targets: WebhookTargetAdmin = self.admin_site.get_model_admin(WebhookTarget)  # type: ignore[assignment]  # this app registers no other
        return targets


# -- the list ----------------------------------------------------------------------------------------------------------

KINDS = {
    "system": Q(owner__isnull=True, is_hidden=False),
    "hidden": Q(is_hidden=True),
}


class StateFilter(WordFilter):
    title = parameter_name = "state"
    conditions = STATES


class KindFilter(admin.SimpleListFilter):
    """Leaves out hidden targets, unless it is asked for them."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [("system", "the system's"), ("hidden", "hidden, made by fire(urls=…)")]

    def choices(self, changelist: Any) -> Iterator[Any]:
        everything, *others = super().choices(changelist)
        yield {**everything, "display": "all but hidden"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: QuerySet[WebhookTarget]) -> QuerySet[WebhookTarget]:
        return queryset.filter(KINDS.get(self.value() or "", Q(is_hidden=False)))


@admin.register(WebhookTarget)
class WebhookTargetAdmin(VersionsAdmin):
    """Makes and changes targets. A secret is shown once, in answer to the request that made it, and stored nowhere else."""

    form = TargetForm
    inlines = (SubscriptionInline,)
    raw_id_fields = ("owner",)
    list_display = ("address", "state", "owner_name", "event_names", "identifier")
    list_select_related = ("owner", "lane")
    list_filter = (StateFilter, KindFilter, ("is_active", titled("active")), ("is_ordered", titled("ordered")))
    search_help_text = "A part of the URL, the identifier or the owner's name."
    readonly_fields = (
        "condition",
        "key_states",
        "verification",
        "logs",
        "uid",
        "created",
        "modified",
        "header_names",
        "owner_link",
        "authentication_now",
        "certificate_now",
    )
    row_actions = (
        RowAction("test", "Send test event", send_test),
        RowAction("resume", "Resume", resume, suits=lambda target: target.state in {"paused", "disabled", "suspended"}),
        RowAction("probe", "Probe now", probe, suits=lambda target: target.state in {"disabled", "suspended"}),
        RowAction("pause", "Pause", pause, suits=lambda target: target.is_active),
        RowAction("rotate-secret", "Rotate secret", rotate_secret),
        RowAction("check-keys", "Check keys", check_keys),
        RowAction("finish-rotation", "Finish rotation", finish_rotation, suits=lambda target: len(read_keys(target)) > 1),
        RowAction("retry-failed", "Retry failed deliveries", retry_failed, is_signed=True, permission="retry"),
    )
    actions = (*(list_action(action) for action in row_actions), replay)

    # -- permissions ----------------------------------------------------------------------------------------------------

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return self.admin_site.is_registered(Replay) and request.user.has_perm("djwebhooks.add_replay")

    def has_retry_permission(self, request: HttpRequest, row: Any = None) -> bool:
        return self.has_act_permission(request, row) and request.user.has_perm("djwebhooks.add_replay")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and may_touch(request, obj)

    # -- list -----------------------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookTarget]:
        return super().get_queryset(request).prefetch_related("subscriptions")

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        name = getattr(apps.get_model(owner_model()), "USERNAME_FIELD", None)
        return ("target_url", "identifier", *([f"owner__{name}"] if name else []))

    @admin.display(description="URL")
    def address(self, target: WebhookTarget) -> SafeString:
        return breakable(target.target_url)

    @admin.display(description="owner")
    def owner_name(self, target: WebhookTarget) -> str:
        return name_owner(target)

    @admin.display(description="events")
    def event_names(self, target: WebhookTarget) -> SafeString:
        names = target.events
        more = f" and {len(names) - SHOWN_EVENTS} more" if len(names) > SHOWN_EVENTS else ""
        return breakable(", ".join(names[:SHOWN_EVENTS]) + more)

    @admin.display(description="state")
    def state(self, target: WebhookTarget) -> SafeString:
        return badge(target.state)

    # -- page -----------------------------------------------------------------------------------------------------------

    created = time_field("created_at", "created")
    modified = time_field("modified_at", "modified")

    def get_fieldsets(self, request: HttpRequest, obj: WebhookTarget | None = None) -> Any:
        can_write = self.has_add_permission(request) if obj is None else self.has_change_permission(request, obj)
        # Another owner would see what was sent for this one.
        owner = ("owner_link",) if obj else ("owner", "is_system") if request.user.has_perm(SYSTEM_PERMISSION) else ("owner",)
        # What a header holds may be a password of the receiver's.
        headers = "headers" if can_write else "header_names"
        limits = (("rate_limit", "rate_period"), "concurrency_limit")
        sending = ("filters", "is_ordered", "envelope", "sender", "version", "signatures", headers, "retry_schedule", *limits)
        shown = ("authentication_now", "certificate_now") if obj else ()
        written = ("authentication_type", "authentication_parts", "new_certificate", *(("remove_certificate",) if obj else ()))
        knowing = (*shown, *(written if can_write else ()))
        condition = [("Condition", {"fields": ("condition", "logs", "uid", "created", "modified")})] if obj else []
        keys = [("Keys", {"fields": ("key_states", "verification")})] if obj else []
        return [
            *condition,
            (None, {"fields": ("target_url", *owner, "identifier", "description", "is_active")}),
            ("How it is sent", {"fields": sending, "description": "What is left empty is as the project's settings say."}),
            ("How the receiver knows who sends", {"fields": knowing, "description": "Besides the signature, if it wants more."}),
            *keys,
        ]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None and request.user.has_perm(SYSTEM_PERMISSION):
            kwargs.setdefault("form", SystemTargetForm)
        return super().get_form(request, obj, change=change, **kwargs)

    @admin.display(description="state")
    def condition(self, target: WebhookTarget) -> SafeString:
        using = events_database()
        now = read_clock(using)
        reasons = list(list_holds(using, target, now))
        reasons += list_troubles(target.health, now)
        return format_html("{} {}", badge(target.state), "; ".join(reasons))

    @admin.display(description="keys")
    def key_states(self, target: WebhookTarget) -> SafeString | str:
        keys = [(key.id, key.public_key, "; ".join(describe_key(key))) for key in read_keys(target)]
        return (
            format_html_join("", "<p>id <code>{}</code><br>public key <code>{}</code><br>{}</p>", keys)
            or "No key opens them: rotate the secret."
        )

    @admin.display(description="verification")
    def verification(self, target: WebhookTarget) -> SafeString | str:
        return VERIFICATION[target.accepts_unknown_keys]

    @admin.display(description="deliveries")
    def logs(self, target: WebhookTarget) -> SafeString:
        links = [
            (link_to_list(Delivery, status or "all", target=target.pk, **({"status__exact": status} if status else {})),)
            for status in ("", *Status.values)
        ]
        return format_html_join(" · ", "{}", links)

    @admin.display(description="owner")
    def owner_link(self, target: WebhookTarget) -> SafeString | str:
        return link_to(target.owner, name_owner(target)) if target.owner is not None else name_owner(target)

    @admin.display(description="headers")
    def header_names(self, target: WebhookTarget) -> str:
        try:
            return ", ".join(target.headers) or NOTHING
        except UndecryptableSecret:
            return "unreadable"

    @admin.display(description="authentication")
    def authentication_now(self, target: WebhookTarget) -> str:
        return describe_parts(target.authentication_summary)

    @admin.display(description="client certificate")
    def certificate_now(self, target: WebhookTarget) -> str:
        return describe_parts(target.client_certificate_summary)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> HttpResponse:
        target = context.get("original")
        if target is not None:
            context["tools"] = list(self._list_tools(request, target))
        return super().render_change_form(request, context, *args, **kwargs)

    def _list_tools(self, request: HttpRequest, target: WebhookTarget) -> Iterator[SafeString]:
        if self.has_change_permission(request, target):
            yield self.versions_link(target)
        if self.has_replay_permission(request) and may_touch(request, target):
            yield format_html('<a href="{}?targets={}">Replay deliveries…</a>', reverse(ADD_URL), target.uid)

    def save_model(self, request: HttpRequest, obj: WebhookTarget, form: Any, change: bool) -> None:
        """Write only what the form changes: what others write meanwhile, such as a new secret, stays."""
        if change:
            obj.lock_row(events_database())
            obj.save(update_fields=[*{COLUMNS.get(name, name) for name in form.changed_data}, "modified_at"])
        else:
            super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        target = form.instance
        if target.is_hidden and Subscription.objects.filter(target=target).exists():
            target.is_hidden = False
            target.save(update_fields=["is_hidden", "modified_at"])

    # -- secrets --------------------------------------------------------------------------------------------------------

    @method_decorator(sensitive_post_parameters(*SECRET_FIELDS))
    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """As Django's, and what may be a receiver's password is left out of reports of errors."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except DeletedTarget as error:
            self.message_user(request, words_of(error), messages.ERROR)
            return HttpResponseRedirect(reverse("admin:djwebhooks_webhooktarget_changelist"))

    def response_add(self, request: HttpRequest, obj: WebhookTarget, post_url_continue: str | None = None) -> HttpResponse:
        if IS_POPUP_VAR in request.POST:
            return super().response_add(request, obj, post_url_continue)
        return self.show_secrets(request, [(obj, Done("Added.", obj.secret))])


def describe_key(key: KeyState) -> Iterator[str]:
    """Say what is known of a key, one thing at a time."""
    yield f"made {show_time(key.created_at)}"
    if key.until is not None:
        yield f"signs until {show_time(key.until)}"
    if key.last_accepted_at is not None:
        yield f"accepted alone {show_time(key.last_accepted_at)}"
    if key.last_refused_at is not None:
        yield f"refused {show_time(key.last_refused_at)}"


def describe_parts(summary: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in summary.items()) or NOTHING
