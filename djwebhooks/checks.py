"""Say at the start what is set up wrongly."""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from inspect import isabstract
from operator import itemgetter
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.db.models import Count
from django.urls import get_resolver
from django.utils.module_loading import import_string

from djwebhooks import catalogue, database, network, payload, senders, signing
from djwebhooks.conf import conf
from djwebhooks.engines.base import Engine
from djwebhooks.exceptions import ConfigurationError, DjWebhooksError, InvalidEvent, UnknownEvent
from djwebhooks.model_events import read_all
from djwebhooks.models import WebhookTarget
from djwebhooks.models.events import SENDER_LENGTH, events_database
from djwebhooks.models.replays import check_rate
from djwebhooks.names import check_name
from djwebhooks.owners import owner_model
from djwebhooks.versions import check_version
from djwebhooks.weaknesses import RQ_ENGINE, WEAKNESSES

#: What a transport must be able to do: the methods of ``djwebhooks.transports.base.Transport``.
TRANSPORT_METHODS = ("submit", "wait", "wake", "abort", "close")
#: What receivers of CloudEvents may be asked by.
DNS_NAME = re.compile(r"[a-zA-Z0-9-]{1,63}(\.[a-zA-Z0-9-]{1,63})*")
#: What the name of a sender may be.
SENDER_NAME = re.compile(rf"[a-zA-Z0-9_-]{{1,{SENDER_LENGTH}}}")
#: A number of requests, and the time for them.
THROTTLE = re.compile(r"[1-9][0-9]*/(second|minute|hour|day)")
#: The longest duration that makes sense, in seconds: sums of times must stay in the calendar.
CENTURY = 100 * 365 * 24 * 3600


def check_names(**_: Any) -> Iterator[CheckMessage]:
    """Settings that djwebhooks does not have."""
    known = set(conf.names())
    for name in dir(settings):
        if name.startswith("DJWEBHOOKS_") and name not in known:
            yield Error(f"There is no setting {name}.", hint=f"There are {', '.join(sorted(known))}.", id="djwebhooks.E001")


def check_paths(**_: Any) -> Iterator[CheckMessage]:
    """Dotted paths that lead nowhere, or to something else."""
    for name, (wanted, suits) in KINDS.items():
        path = getattr(conf, name)
        if path is None and name == "REQUEST_OWNER":
            continue
        fault = _find_fault(path, wanted, suits)
        if fault:
            yield Error(f"DJWEBHOOKS_{name} {fault}", id="djwebhooks.E002")


def _find_fault(path: object, wanted: str, suits: Callable[[Any], bool]) -> str:
    if not isinstance(path, str):
        return f"must be a dotted path, not {path!r}."
    try:
        found = import_string(path)
    except Exception as error:  # noqa: BLE001  # what is imported may fail in ways of its own
        return f"is {path!r}, which cannot be imported: {error}"
    return "" if suits(found) else f"is {path!r}, which is not {wanted}."


def _is_engine(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, Engine) and not isabstract(found)


def _is_transport(found: Any) -> bool:
    return isinstance(found, type) and all(callable(getattr(found, name, None)) for name in TRANSPORT_METHODS)


def _is_encoder(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, json.JSONEncoder)


def check_owner_model(**_: Any) -> Iterator[CheckMessage]:
    """An owner model that is not installed, or that targets cannot refer to."""
    try:
        model = apps.get_model(owner_model())
    except (LookupError, ValueError) as error:
        yield Error(f"DJWEBHOOKS_OWNER_MODEL is {owner_model()!r}: {error}", id="djwebhooks.E003")
        return
    if (owners := router.db_for_write(model)) != (alias := events_database()):
        yield checks.Warning(
            f"{owner_model()} is kept in the database {owners!r}, and targets, which refer to their owners, in {alias!r}.",
            hint="Route djwebhooks' models to the same database, or keep a copy of the owners' table there.",
            id="djwebhooks.W022",
        )


def check_durations(**_: Any) -> Iterator[CheckMessage]:
    """Durations that are not positive numbers of seconds."""
    for name in ("CONNECT_TIMEOUT", "TIMEOUT", "SUSPEND_AFTER", "DISABLE_AFTER", "RETENTION"):
        value = getattr(conf, name)
        if not _is_duration(value):
            yield Error(f"DJWEBHOOKS_{name} must be seconds above 0 or a timedelta, not {value!r}.", id="djwebhooks.E004")
    if conf.EXPIRE_AFTER is not None and not _is_duration(conf.EXPIRE_AFTER):
        yield Error(
            f"DJWEBHOOKS_EXPIRE_AFTER must be seconds above 0, a timedelta or None, not {conf.EXPIRE_AFTER!r}.",
            id="djwebhooks.E004",
        )


def _is_duration(value: object) -> bool:
    seconds = getattr(value, "total_seconds", lambda: value)()
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= CENTURY


def check_schedule(**_: Any) -> Iterator[CheckMessage]:
    """A retry schedule, or one of cool-downs, that is not a sequence of durations."""
    schedule = conf.RETRY_SCHEDULE
    if isinstance(schedule, str) or not isinstance(schedule, Sequence) or not all(_is_pause(pause) for pause in schedule):
        yield Error(
            f"DJWEBHOOKS_RETRY_SCHEDULE must be a sequence of seconds or timedeltas, not {schedule!r}.", id="djwebhooks.E005"
        )
    cooldowns = conf.COOLDOWN_SCHEDULE
    if isinstance(cooldowns, str) or not isinstance(cooldowns, Sequence) or not cooldowns or not all(map(_is_pause, cooldowns)):
        yield Error(
            f"DJWEBHOOKS_COOLDOWN_SCHEDULE must be a sequence of seconds or timedeltas, at least one, not {cooldowns!r}.",
            id="djwebhooks.E005",
        )


def _is_pause(value: object) -> bool:
    return value == 0 or _is_duration(value)


def check_numbers(**_: Any) -> Iterator[CheckMessage]:
    """Limits that are not whole numbers above 0."""
    for name in ("RQ_JOBS", "PAYLOAD_LIMIT", "RESPONSE_LIMIT", "TARGETS_PER_OWNER", "CONCURRENCY"):
        value = getattr(conf, name)
        if name == "CONCURRENCY" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            yield Error(f"DJWEBHOOKS_{name} must be a whole number above 0, not {value!r}.", id="djwebhooks.E006")


def check_rates(**_: Any) -> Iterator[CheckMessage]:
    """A rate of replays, or of requests to the API, that cannot be."""
    try:
        check_rate(conf.REPLAY_RATE)
    except DjWebhooksError as error:
        yield Error(f"DJWEBHOOKS_REPLAY_RATE: {error}", id="djwebhooks.E024")
    throttles = conf.API_THROTTLES
    if not isinstance(throttles, Mapping) or not all(map(_is_throttle, throttles.items())):
        yield Error(
            "DJWEBHOOKS_API_THROTTLES must be a dictionary such as {'test': '30/minute', 'replay': '60/hour'}, "
            f"not {throttles!r}.",
            id="djwebhooks.E024",
        )


def _is_throttle(item: tuple[object, object]) -> bool:
    scope, rate = item
    return scope in ("test", "retry", "replay", "feed") and isinstance(rate, str) and THROTTLE.fullmatch(rate) is not None


def check_envelope(**_: Any) -> Iterator[CheckMessage]:
    """An envelope that does not exist."""
    try:
        payload.envelope_format(conf.ENVELOPE, with_owner=False)
    except ImproperlyConfigured as error:
        yield Error(str(error), id="djwebhooks.E007")


def check_origin(**_: Any) -> Iterator[CheckMessage]:
    """A name to ask receivers by that is none."""
    origin = conf.CLOUDEVENTS_ORIGIN
    if origin and not (isinstance(origin, str) and DNS_NAME.fullmatch(origin)):
        yield Error(
            f"DJWEBHOOKS_CLOUDEVENTS_ORIGIN must be a DNS name, such as 'app.example.com', not {origin!r}.", id="djwebhooks.E031"
        )


def check_senders(**_: Any) -> Iterator[CheckMessage]:
    """Senders that are none."""
    if not isinstance(conf.SENDERS, Mapping):
        yield Error(
            f"DJWEBHOOKS_SENDERS must be a dictionary of names and dotted paths, not {conf.SENDERS!r}.", id="djwebhooks.E030"
        )
        return
    for name in conf.SENDERS:
        if not (isinstance(name, str) and SENDER_NAME.fullmatch(name)):
            yield Error(
                f"DJWEBHOOKS_SENDERS has the name {name!r}: use up to {SENDER_LENGTH} of a-z, A-Z, 0-9, _ and -.",
                id="djwebhooks.E030",
            )
        elif fault := senders.find_fault(name):
            yield Error(fault, id="djwebhooks.E030")
    if conf.SENDER not in ("", *conf.SENDERS):
        yield Error(f"DJWEBHOOKS_SENDER is {conf.SENDER!r}, which DJWEBHOOKS_SENDERS does not have.", id="djwebhooks.E030")


def check_chosen_senders(databases: Sequence[str] | None = None, **_: Any) -> Iterator[CheckMessage]:
    """Targets whose sender is gone."""
    alias = events_database()
    if alias not in (databases or ()) or WebhookTarget._meta.db_table not in connections[alias].introspection.table_names():
        return
    chosen = WebhookTarget.objects.using(alias).exclude(sender="").order_by("sender").values_list("sender").annotate(Count("pk"))
    for name, count in chosen:
        if fault := senders.find_fault(name):
            yield checks.Warning(f"Nothing is sent to {count} of the targets. {fault}", id="djwebhooks.W020")


def check_networks(**_: Any) -> Iterator[CheckMessage]:
    """Allowed networks that are none."""
    networks = conf.ALLOWED_NETWORKS
    try:
        if isinstance(networks, str):
            raise TypeError("a string is a sequence of letters")
        network.is_forbidden("127.0.0.1")
    except TypeError:
        yield Error(
            f"DJWEBHOOKS_ALLOWED_NETWORKS must be a list, such as ['127.0.0.0/8'], not {networks!r}.", id="djwebhooks.E008"
        )
    except DjWebhooksError as error:
        yield Error(str(error), id="djwebhooks.E008")


def check_ports(**_: Any) -> Iterator[CheckMessage]:
    """Allowed ports that are none, or no port at all."""
    ports = conf.ALLOWED_PORTS
    if ports is None:
        return
    if isinstance(ports, str) or not isinstance(ports, Collection) or not ports or not all(map(_is_port, ports)):
        yield Error(
            f"DJWEBHOOKS_ALLOWED_PORTS must be None or a list of ports, such as [443, 8443], not {ports!r}.", id="djwebhooks.E017"
        )


def _is_port(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535


def check_hosts(**_: Any) -> Iterator[CheckMessage]:
    """Forbidden hosts that are none."""
    hosts = conf.FORBIDDEN_HOSTS
    if hosts is None:
        return
    if isinstance(hosts, str) or not isinstance(hosts, Sequence) or not all(isinstance(host, str) for host in hosts):
        yield Error(
            f"DJWEBHOOKS_FORBIDDEN_HOSTS must be None or a list, such as ['example.com'], not {hosts!r}.", id="djwebhooks.E018"
        )
        return
    try:
        network.parse_hosts(tuple(hosts))
    except DjWebhooksError as error:
        yield Error(str(error), id="djwebhooks.E018")


def check_catalogue(**_: Any) -> Iterator[CheckMessage]:
    """Names of events that cannot be, and what is said of them in a wrong way."""
    if not isinstance(conf.EVENTS, Mapping):
        yield Error(f"DJWEBHOOKS_EVENTS must be a dictionary of names, not {conf.EVENTS!r}.", id="djwebhooks.E009")
        return
    for name, entry in conf.EVENTS.items():
        try:
            check_name(name)
        except DjWebhooksError as error:
            yield Error(f"DJWEBHOOKS_EVENTS: {error}", id="djwebhooks.E009")
        for fault in catalogue.list_faults(name, entry):
            yield Error(f"DJWEBHOOKS_EVENTS: {fault}", id="djwebhooks.E009")


def check_hooks(**_: Any) -> Iterator[CheckMessage]:
    """Hooks whose calls, or builds, would raise, as the catalogue does not have their events, or their versions."""
    if not isinstance(conf.EVENTS, Mapping) or not isinstance(conf.MODEL_EVENTS, Mapping):
        return
    hooks = _list_hooks()
    for place, hook in hooks:
        if not catalogue.is_known(hook.event):
            yield Error(
                f"The hook {place} fires {hook.event!r}, which is not in the catalogue.",
                hint="Add it to DJWEBHOOKS_EVENTS, or say it with register_event(), or correct its spelling.",
                id="djwebhooks.E032",
            )
    if any(check_catalogue()):  # It is to be mended first.
        return
    for place, hook in hooks:
        for fault in _list_unknown_versions(hook):
            yield Error(f"The hook {place}: {fault}", hint="Add it there, or correct its spelling.", id="djwebhooks.E032")


def check_hook_senders(**_: Any) -> Iterator[CheckMessage]:
    """Hooks whose calls would raise, as they name a sender that there is not."""
    if not isinstance(conf.SENDERS, Mapping):
        return
    for place, hook in _list_hooks():
        if isinstance(hook.sender, str) and hook.sender not in ("", *conf.SENDERS):
            yield Error(
                f"The hook {place} has the sender {hook.sender!r}, which DJWEBHOOKS_SENDERS does not have.",
                hint="Add it there, or correct its spelling.",
                id="djwebhooks.E033",
            )


def _list_hooks() -> list[tuple[str, Any]]:
    """Return all hooks, each after the place where it is defined."""
    if getattr(settings, "ROOT_URLCONF", None):
        get_resolver().url_patterns  # noqa: B018  # the views bring their hooks
    return sorted(((f"{hook.__module__}.{hook.__qualname__}", hook) for hook in catalogue.hooks), key=itemgetter(0))


def _list_unknown_versions(hook: Any) -> Iterator[str]:
    for version in (hook.current, *hook.versions):
        try:
            catalogue.check_version_known(hook.event, version)
        except UnknownEvent as error:
            yield str(error)


def check_model_events(**_: Any) -> Iterator[CheckMessage]:
    """Events about models that would keep rows from being saved, or that hardly anybody would get."""
    alias = events_database()
    for model_event in read_all(conf.MODEL_EVENTS):
        name, label = model_event.name, model_event.model._meta.label
        if (other := router.db_for_write(model_event.model)) != alias:
            yield Error(
                f"DJWEBHOOKS_MODEL_EVENTS has {name!r}, but {label} is kept in the database {other!r}, and events in {alias!r}.",
                hint="Route djwebhooks' models to the same database: what is in two cannot be written in one transaction.",
                id="djwebhooks.E027",
            )
        if model_event.has_no_receivers:
            yield checks.Warning(
                f"DJWEBHOOKS_MODEL_EVENTS has {name!r} without an owner, so that the system's own targets alone get it.",
                hint="Say whose it is with 'owner', or say 'owner': None if that is meant.",
                id="djwebhooks.W015",
            )


def check_validation(**_: Any) -> Iterator[CheckMessage]:
    """Payloads that are to be held against their schemas in a way that is none, or without the library for it."""
    mode = conf.VALIDATE_PAYLOADS
    if mode not in catalogue.VALIDATIONS:
        yield Error(
            f"DJWEBHOOKS_VALIDATE_PAYLOADS must be one of {', '.join(map(repr, catalogue.VALIDATIONS))}, not {mode!r}.",
            id="djwebhooks.E025",
        )
    elif mode is not None and isinstance(conf.EVENTS, Mapping) and catalogue.has_schemas() and catalogue.find_schemas() is None:
        hint = "Or set DJWEBHOOKS_VALIDATE_PAYLOADS to None."
        if mode == "refuse":
            yield Error(catalogue.NO_LIBRARY, hint=hint, id="djwebhooks.E026")
        else:
            yield checks.Warning(catalogue.NO_LIBRARY, hint=hint, id="djwebhooks.W014")


def check_statuses(**_: Any) -> Iterator[CheckMessage]:
    """Statuses to give up on that are none, or that are successes."""
    statuses = conf.GIVE_UP_ON
    if not isinstance(statuses, Collection) or not all(isinstance(code, int) and 300 <= code <= 599 for code in statuses):
        yield Error(
            f"DJWEBHOOKS_GIVE_UP_ON must be a list of HTTP statuses from 300 to 599, not {statuses!r}.", id="djwebhooks.E012"
        )


def check_owner_field(**_: Any) -> Iterator[CheckMessage]:
    """An attribute that owners do not have."""
    name = conf.OWNER_FIELD
    if name is None or owner_model() not in {model._meta.label for model in apps.get_models()}:
        return
    model = apps.get_model(owner_model())
    names = [*(field.name for field in model._meta.get_fields()), *dir(model)]
    if name not in names:
        yield Error(f"DJWEBHOOKS_OWNER_FIELD is {name!r}, which {owner_model()} does not have.", id="djwebhooks.E013")


def check_keys(**_: Any) -> Iterator[CheckMessage]:
    """Encryption keys that are not a sequence of texts."""
    keys = conf.ENCRYPTION_KEYS
    if isinstance(keys, str) or not isinstance(keys, Sequence) or not all(isinstance(key, str) and key for key in keys):
        # The value stays out of it: it is secret.
        yield Error("DJWEBHOOKS_ENCRYPTION_KEYS must be a list of strings that are not empty.", id="djwebhooks.E014")


def check_queue(**_: Any) -> Iterator[CheckMessage]:
    """A queue for wake-ups that django-rq does not have."""
    if conf.ENGINE != RQ_ENGINE:
        return
    other = "or set DJWEBHOOKS_ENGINE to 'djwebhooks.engines.database.DatabaseEngine'"
    if not apps.is_installed("django_rq"):
        yield Error(
            f"DJWEBHOOKS_ENGINE is {conf.ENGINE!r}, but 'django_rq' is not in INSTALLED_APPS.",
            hint=f"Add 'django_rq' to INSTALLED_APPS and the queue {conf.QUEUE!r} to RQ_QUEUES, {other}.",
            id="djwebhooks.E010",
        )
    elif conf.QUEUE not in list(getattr(settings, "RQ_QUEUES", {})):
        yield Error(
            f"DJWEBHOOKS_QUEUE is {conf.QUEUE!r}, which RQ_QUEUES does not have.",
            hint=f"Add it to RQ_QUEUES, {other}.",
            id="djwebhooks.E010",
        )


def check_namesake(**_: Any) -> Iterator[CheckMessage]:
    """dj-webhooks, which is installed into the same directory."""
    if list(metadata.distributions(name="dj-webhooks")):
        yield checks.Warning(
            "dj-webhooks is installed into the same directory: of each file that both have, one has replaced the other.",
            hint="pip uninstall dj-webhooks, and then pip install --force-reinstall --no-deps djwebhooks.",
            id="djwebhooks.W021",
        )


def check_time_zones(**_: Any) -> Iterator[CheckMessage]:
    """Times without a zone, which cannot be compared with the database's clock."""
    if not settings.USE_TZ:
        yield Error("djwebhooks needs USE_TZ = True.", id="djwebhooks.E015")


def check_switches(**_: Any) -> Iterator[CheckMessage]:
    """A switch that is neither on nor off: a text such as "no" would count as on."""
    for name in ("ALLOW_HTTP", "DISABLED_EMAIL"):
        value = getattr(conf, name)
        if not isinstance(value, bool):
            yield Error(f"DJWEBHOOKS_{name} must be True or False, not {value!r}.", id="djwebhooks.E016")


def check_locking(**_: Any) -> Iterator[CheckMessage]:
    """A SQLite whose transactions fail instead of waiting for each other."""
    connection = connections[events_database()]
    mode = connection.settings_dict.get("OPTIONS", {}).get("transaction_mode") or "DEFERRED"
    if connection.vendor == "sqlite" and mode.upper() == "DEFERRED":
        yield checks.Warning(
            f"The database {connection.alias!r} is a SQLite without transaction_mode IMMEDIATE: "
            "requests fail with 'database is locked' while a worker writes.",
            hint=f"Add 'OPTIONS': {{'transaction_mode': 'IMMEDIATE', 'timeout': 20}} to DATABASES[{connection.alias!r}]; "
            'see "SQLite" on the page "Run in production" of the documentation.',
            id="djwebhooks.W003",
        )


def check_autocommit(**_: Any) -> Iterator[CheckMessage]:
    """A database that commits only what it is told to."""
    alias = events_database()
    if not connections[alias].settings_dict["AUTOCOMMIT"]:
        yield Error(
            f"The database {alias!r} has AUTOCOMMIT off, but workers need it: they could commit nothing.",
            hint=f"Leave 'AUTOCOMMIT' out of DATABASES[{alias!r}], and use transaction.atomic().",
            id="djwebhooks.E034",
        )


def check_isolation(**_: Any) -> Iterator[CheckMessage]:
    """A database whose isolation level hides from one worker what another has done."""
    alias = events_database()
    if not database.has_read_committed(alias):
        level = connections[alias].settings_dict["OPTIONS"]["isolation_level"]
        yield Error(
            f"The database {alias!r} has isolation level {level!r}, but workers need READ COMMITTED.",
            hint=f"Leave 'isolation_level' out of the OPTIONS of DATABASES[{alias!r}].",
            id="djwebhooks.E011",
        )


def check_server(databases: Sequence[str] | None = None, **_: Any) -> Iterator[CheckMessage]:
    """A database server that is too old, or not made for this."""
    alias = events_database()
    fault = database.find_fault(alias) if alias in (databases or ()) else ""
    if fault:
        yield Error(f"The database {alias!r} {fault}", id="djwebhooks.E021")


def check_signatures(**_: Any) -> Iterator[CheckMessage]:
    """Versions of signatures that do not exist, or none at all."""
    try:
        signing.check_versions(conf.SIGNATURES)
    except ConfigurationError as error:
        yield Error(str(error), id="djwebhooks.E019")


def check_target_version(**_: Any) -> Iterator[CheckMessage]:
    """A version for new targets that cannot be, or that no event has."""
    version = conf.TARGET_VERSION
    if any(check_catalogue()):  # It is to be mended first.
        return
    try:
        fault = catalogue.find_version_fault(check_version(version), catalogue.names_of_all()) if version != "" else ""
    except InvalidEvent as error:
        fault = str(error)
    if fault:
        yield Error(f"DJWEBHOOKS_TARGET_VERSION: {fault}", id="djwebhooks.E028")


def check_http(**_: Any) -> Iterator[CheckMessage]:
    """Unencrypted or private addresses, allowed in production."""
    if conf.ALLOW_HTTP is True:
        yield checks.Warning("DJWEBHOOKS_ALLOW_HTTP is True: payloads may travel unencrypted.", id="djwebhooks.W001")
    if conf.ALLOWED_NETWORKS:
        yield checks.Warning(
            f"DJWEBHOOKS_ALLOWED_NETWORKS is {conf.ALLOWED_NETWORKS!r}: users' webhooks may reach these networks.",
            id="djwebhooks.W002",
        )


#: What each dotted path must lead to: in words, and as a test.
KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "ENGINE": ("a subclass of djwebhooks.engines.base.Engine with its method wake", _is_engine),
    "TRANSPORT": (f"a class with the methods {', '.join(TRANSPORT_METHODS)}", _is_transport),
    "JSON_ENCODER": ("a subclass of json.JSONEncoder", _is_encoder),
    "REQUEST_OWNER": ("a function", callable),
}
CHECKS = (
    check_names,
    check_paths,
    check_owner_model,
    check_durations,
    check_schedule,
    check_numbers,
    check_rates,
    check_envelope,
    check_origin,
    check_senders,
    check_networks,
    check_ports,
    check_hosts,
    check_catalogue,
    check_hooks,
    check_hook_senders,
    check_validation,
    check_model_events,
    check_queue,
    check_statuses,
    check_owner_field,
    check_keys,
    check_namesake,
    check_time_zones,
    check_switches,
    check_locking,
    check_autocommit,
    check_signatures,
    check_target_version,
)


def register_all() -> None:
    """Have ``manage.py check`` run the checks."""
    for function in CHECKS:
        register(_listing(function), "djwebhooks")
    register(_listing(check_isolation), Tags.database)
    register(_listing(check_server), Tags.database)
    register(_listing(check_chosen_senders), Tags.database)
    for function in (check_http, *WEAKNESSES):
        register(_listing(function), "djwebhooks", deploy=True)


# Django knows by the function what is registered already, when a test's INSTALLED_APPS make the app ready again.
@cache
def _listing(function: Any) -> Any:
    def run(**kwargs: Any) -> list[CheckMessage]:
        return list(function(**kwargs))

    run.__name__ = function.__name__
    return run
