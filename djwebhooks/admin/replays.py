"""The admin page of replays: who wanted what sent again, what became of it, and a form to ask for one."""

from copy import copy
from dataclasses import replace
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from djwebhooks.admin.pages import SYSTEM_PERMISSION, may_touch
from djwebhooks.conf import conf
from djwebhooks.exceptions import AlreadyFinished, InvalidReplay
from djwebhooks.explain.deliveries import THROUGH
from djwebhooks.models import Delivery, Replay, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.models.events import events_database
from djwebhooks.models.replays import REPLAYABLE, STATES, Criteria, Plan, Through, check_rate, make_criteria
from djwebhooks.pages import (
    NOTHING,
    ActingAdmin,
    Done,
    ReadOnlyAdmin,
    RowAction,
    WordFilter,
    badge,
    link_to,
    link_to_list,
    list_action,
    read_uuid,
    time_field,
    titled,
)
from djwebhooks.words import describe_time

#: The name of the form's address.
ADD_URL = "admin:djwebhooks_replay_add"
#: Who may replay for all owners at once.
EVERYBODY_PERMISSION = "djwebhooks.replay_everybody"
#: Reasons for which deliveries are left out, in words.
OBSTACLES = {"expired": "their events have expired", "erased": "their data was erased", "gone": "target or event was deleted"}


def cancel(replay: Replay, by: Any) -> Done:
    try:
        replay.cancel(by=by)
    except AlreadyFinished as error:
        # Which replay it is, the page says before it.
        raise AlreadyFinished("There is nothing left to cancel.") from error
    return Done("Cancelled: what was not sent yet is as it was before.")


def describe_plan(plan: Plan) -> str:
    """Say how many deliveries would be sent again, and how many would not, and why."""
    left_out = [f"{count} left out: {OBSTACLES[name]}" for name, count in plan.left_out.items() if count]
    return "; ".join([f"Deliveries that would be sent again: {plan.count}", *left_out]) + "."


def touches_system(replay: Replay) -> bool:
    """Whether it may be about deliveries to the system's targets."""
    criteria = replay.criteria
    if replay.owner_id is not None or criteria.is_owned:
        return False
    return not criteria.targets or WebhookTarget.objects.filter(uid__in=criteria.targets, owner__isnull=True).exists()


# -- the form ----------------------------------------------------------------------------------------------------------


class ReplayForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    """Which deliveries are to be sent again, and how fast."""

    targets = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
        help_text="Their uids. Choose targets in their list, and the action there, to have them filled in.",
    )
    status = forms.MultipleChoiceField(
        choices=[(status, status) for status in REPLAYABLE],
        initial=["failed"],
        widget=forms.CheckboxSelectMultiple,
        help_text="How they ended. Who has got a succeeded one gets it twice.",
    )
    since = forms.DateTimeField(
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
        help_text="When their deliveries were made: then or later.",
    )
    until = forms.DateTimeField(
        required=False, widget=forms.DateTimeInput(attrs={"type": "datetime-local"}), help_text="Before then."
    )
    event = forms.CharField(
        required=False, max_length=255, help_text="A name, a pattern such as project.*, or one event's uid; empty is any."
    )
    rate = forms.FloatField(required=False, help_text="Deliveries per second; empty is as DJWEBHOOKS_REPLAY_RATE says.")

    #: Of the one who asks.
    request: HttpRequest
    #: Set once the form is valid.
    criteria: Criteria

    def clean_targets(self) -> list[WebhookTarget] | None:
        words = self.cleaned_data["targets"].replace(",", " ").split()
        uids = {uid for word in words if (uid := read_uuid(word)) is not None}
        found = list(WebhookTarget.objects.filter(uid__in=uids))
        unknown = set(words).difference(str(target.uid) for target in found)
        if unknown:
            raise ValidationError(f"There is no target with the uid {sorted(unknown)[0]!r}.")
        for target in found:
            if not may_touch(self.request, target):
                raise ValidationError(f"Target {target.uid} is the system's, which takes the permission {SYSTEM_PERMISSION}.")
        return found or None

    def clean_rate(self) -> float:
        rate = self.cleaned_data["rate"]
        try:
            return check_rate(conf.REPLAY_RATE if rate is None else rate)
        except InvalidReplay as error:
            raise ValidationError(str(error)) from error

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            which = ("targets", "owner", "since", "until", "status", "event")
            try:
                everybody = cleaned.get("everybody", False)
                criteria = make_criteria(everybody=everybody, **{name: cleaned[name] for name in which})
            except InvalidReplay as error:
                raise ValidationError(str(error)) from error
            self.criteria = replace(criteria, is_owned=everybody and not self.request.user.has_perm(SYSTEM_PERMISSION))
        return cleaned


class EverybodyReplayForm(ReplayForm):
    """The same, for those who may replay for all owners at once."""

    everybody = forms.BooleanField(
        required=False, label="Everybody's", help_text="All targets of all owners, and the system's if you may change these."
    )


# -- the list ----------------------------------------------------------------------------------------------------------


class StateFilter(WordFilter):
    title = parameter_name = "state"
    conditions = STATES


class WayFilter(WordFilter):
    title = parameter_name = "way"
    conditions = {words: Q(requested_through=through) for through, words in THROUGH.items()}


@admin.register(Replay)
class ReplayAdmin(ReadOnlyAdmin, ActingAdmin):
    """Shows replays and retries, starts replays, and cancels them."""

    form = ReplayForm
    raw_id_fields = ("owner",)
    list_display = ("summary", "state_badge", "who", "reopened", "created")
    list_filter = (StateFilter, ("is_retry", titled("retry")), WayFilter)
    search_fields = ("requested_by",)
    search_help_text = "The uid of a replay, or the beginning of who wanted it."
    fieldsets = (
        (None, {"fields": ("which", "state_badge", "progress_links", "who_words", "created", "finished", "cancelled")}),
        ("How", {"fields": ("rate_words", "reopened", "uid")}),
    )
    row_actions = (RowAction("cancel", "Cancel", cancel, suits=lambda replay: replay.cancelled_at is None, is_signed=True),)
    actions = tuple(list_action(action) for action in row_actions)

    # -- permissions ----------------------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("djwebhooks.add_replay")

    def has_act_permission(self, request: HttpRequest, row: Any = None) -> bool:
        may_change: bool = request.user.has_perm("djwebhooks.change_replay")
        return may_change and (row is None or not touches_system(row) or request.user.has_perm(SYSTEM_PERMISSION))

    # -- asking for one -------------------------------------------------------------------------------------------------

    def get_fieldsets(self, request: HttpRequest, obj: Replay | None = None) -> Any:
        if obj is not None:
            return super().get_fieldsets(request, obj)
        everybody = ("everybody",) if request.user.has_perm(EVERYBODY_PERMISSION) else ()
        whose = {"fields": ("targets", "owner", *everybody), "description": "One of these: some targets, or all of an owner's."}
        return [
            ("Whose deliveries", whose),
            ("Which of them", {"fields": ("status", "since", "until", "event")}),
            ("How fast", {"fields": ("rate",)}),
        ]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None and request.user.has_perm(EVERYBODY_PERMISSION):
            kwargs.setdefault("form", EverybodyReplayForm)
        form: Any = super().get_form(request, obj, change=change, **kwargs)  # A class that is made for this request.
        form.request = request
        return form

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Fill in what a link to the form, a count, or a choice of targets has said."""
        given: dict[str, Any] = {name: request.GET[name] for name in request.GET if name != "status"}
        return given | {"status": request.GET.getlist("status") or ["failed"]}

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the form, start what it asks for, or count it, which the form says above itself then."""
        if request.method == "POST" and "_count" in request.POST and self.has_add_permission(request):
            form = self.get_form(request)(request.POST)
            if form.is_valid():
                self.message_user(request, describe_plan(Delivery.objects.using(events_database()).plan(form.criteria)))
                return self.show_form(request, request.POST)
        return super().add_view(request, form_url, extra_context)

    def show_form(self, request: HttpRequest, said: QueryDict) -> HttpResponse:
        """Show the form with what was *said*, in the answer to a POST: it may be more than an address can hold."""
        shown: Any = copy(request)
        shown.method, shown.GET = "GET", said
        return super().add_view(shown, reverse(ADD_URL))

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Replay:
        rate = form.cleaned_data["rate"]
        deliveries = Delivery.objects.db_manager(events_database())
        return deliveries.replay(form.criteria, rate=rate, by=request.user, through=Through.ADMIN)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Do nothing: it is saved already, with what it found."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Do nothing: there is nothing related."""

    def response_add(self, request: HttpRequest, obj: Replay, post_url_continue: str | None = None) -> HttpResponse:
        self.message_user(request, f"Deliveries that are sent again: {obj.count}. See here what becomes of them.")
        return HttpResponseRedirect(reverse("admin:djwebhooks_replay_change", args=[obj.pk]))

    # -- columns --------------------------------------------------------------------------------------------------------

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Replay], search_term: str
    ) -> tuple[QuerySet[Replay], bool]:
        uid = read_uuid(search_term)
        found = Q(uid=uid) if uid else Q(requested_by__startswith=search_term.strip())
        return queryset.filter(found), False

    @admin.display(description="deliveries")
    def summary(self, replay: Replay) -> str:
        return replay.criteria.describe()

    @admin.display(description="deliveries")
    def which(self, replay: Replay) -> SafeString | str:
        """Which deliveries they are, with links to the one target or delivery that it is about."""
        criteria = replay.criteria
        one = Delivery.objects.filter(uid=criteria.delivery).first() if criteria.delivery else None
        if one is None and len(criteria.targets) == 1:
            target = WebhookTarget.objects.filter(uid=criteria.targets[0]).first()
            words = criteria.describe()
            return format_html("{} ({})", words, link_to(target, target)) if target is not None else words
        return link_to(one, criteria.describe()) if one is not None else criteria.describe()

    @admin.display(description="state")
    def state_badge(self, replay: Replay) -> SafeString:
        return badge("retried" if replay.is_retry and replay.state == "finished" else replay.state)

    @admin.display(description="wanted by")
    def who(self, replay: Replay) -> SafeString:
        through = f"through {THROUGH[replay.requested_through]}"
        return format_html('{}<br><span class="quiet">{}</span>', replay.requested_by or NOTHING, through)

    @admin.display(description="wanted by")
    def who_words(self, replay: Replay) -> str:
        return f"{replay.requested_by or 'nobody named'}, through {THROUGH[replay.requested_through]}"

    @admin.display(description="made pending")
    def reopened(self, replay: Replay) -> str:
        return f"{replay.reopened_count} of {replay.count}"

    created = time_field("created_at", "created")
    finished = time_field("finished_at", "finished")

    # -- page -----------------------------------------------------------------------------------------------------------

    @admin.display(description="progress")
    def progress_links(self, replay: Replay) -> SafeString:
        """How many of its deliveries have which status, each with a link to them."""
        parts = [
            (badge(status), link_to_list(Delivery, count, replay=replay.pk, status__exact=status) if status in Status else count)
            for status, count in replay.progress().items()
        ]
        return format_html_join(" · ", "{} {}", parts) or SafeString(NOTHING)

    @admin.display(description="rate")
    def rate_words(self, replay: Replay) -> str:
        return f"{replay.rate:g} a second" if replay.rate else "at once"

    @admin.display(description="cancelled")
    def cancelled(self, replay: Replay) -> str:
        if replay.cancelled_at is None:
            return NOTHING
        by = f" by {replay.cancelled_by}" if replay.cancelled_by else ""
        return f"{describe_time(replay.cancelled_at, timezone.now())}{by}"
