"""Every setting, typed, with its default, read live from Django's settings."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings

Seconds = float


def as_seconds(value: float | timedelta) -> Seconds:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


class Settings:
    """``conf.TIMEOUT`` is ``settings.DJWEBHOOKS_TIMEOUT``, or the default written here."""

    #: Dotted path of the engine: what wakes a worker.
    ENGINE: str = "djwebhooks.engines.rq.RQEngine"
    #: The queue that wake-ups go to: one of django-rq's, or of the backend of tasks.
    QUEUE: str = "default"
    #: The backend of Django's tasks that wake-ups go to.
    TASK_BACKEND: str = "default"
    #: How many RQ jobs, or tasks, may work at once.
    RQ_JOBS: int = 1
    #: Dotted path of the transport: what sends the requests.
    TRANSPORT: str = "djwebhooks.transports.requests.RequestsTransport"
    #: POSTs in flight per worker; ``None`` is the transport's own default.
    CONCURRENCY: int | None = None
    #: The model that owns targets; ``None`` is ``AUTH_USER_MODEL``. Read once, when Django starts.
    OWNER_MODEL: str | None = None
    #: Dotted path of ``(request, **url_kwargs) -> owner`` for the API; ``None`` is the request's user.
    REQUEST_OWNER: str | None = None
    #: The owner's attribute that payloads show; ``None`` is the user name, else the primary key.
    OWNER_FIELD: str | None = None
    #: The catalogue: event name to what is said of it. Empty allows any name.
    EVENTS: Mapping[str, Any] = {}
    #: What becomes of a payload that does not fit its schema: ``"warn"`` logs it, ``"refuse"`` raises; ``None`` does not look.
    VALIDATE_PAYLOADS: str | None = "warn"
    #: Event name to what becomes of which model's rows. Read once, when Django starts.
    MODEL_EVENTS: Mapping[str, Any] = {}
    #: How a body is wrapped: one of ``djwebhooks.payload.ENVELOPES``.
    ENVELOPE: str = "standard"
    #: The DNS name by which receivers of CloudEvents are asked whether they may be sent to; empty asks nobody.
    CLOUDEVENTS_ORIGIN: str = ""
    #: Who writes and sends webhooks in another way: names to dotted paths of ``djwebhooks.senders.Sender`` classes.
    SENDERS: Mapping[str, str] = {}
    #: The name of the sender where neither target nor event has one; empty changes nothing.
    SENDER: str = ""
    #: The version of payloads that new targets are pinned to; empty leaves them with whatever is current.
    TARGET_VERSION: str = ""
    #: What webhooks are signed with: ``"v1"`` (a shared secret), ``"v1a"`` (a public key), or both.
    SIGNATURES: Sequence[str] = ("v1",)
    #: Dotted path of the JSON encoder class.
    JSON_ENCODER: str = "djwebhooks.payload.PayloadEncoder"
    #: Seconds (or a ``timedelta``) to make a connection in.
    CONNECT_TIMEOUT: float | timedelta = 5
    #: Seconds (or a ``timedelta``) for the whole exchange, response body included.
    TIMEOUT: float | timedelta = 15
    #: Seconds (or ``timedelta``) between attempts, jittered. Its length is the number of retries.
    RETRY_SCHEDULE: Sequence[float | timedelta] = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    #: HTTP statuses that end a delivery at once.
    GIVE_UP_ON: Sequence[int] = ()
    #: Seconds (or a ``timedelta``) after which an undelivered event expires; ``None`` is never.
    EXPIRE_AFTER: float | timedelta | None = None
    #: Seconds (or a ``timedelta``) of nothing but failures after which a target is suspended.
    SUSPEND_AFTER: float | timedelta = 60
    #: Seconds (or ``timedelta``) between the probes of a suspended target; the last one is repeated. Jittered.
    COOLDOWN_SCHEDULE: Sequence[float | timedelta] = (60, 300, 900, 3600, 7200, 14400)
    #: Seconds (or a ``timedelta``) of nothing but failures after which a target is disabled.
    DISABLE_AFTER: float | timedelta = timedelta(days=5)
    #: Whether owners are told by e-mail that a target of theirs was disabled.
    DISABLED_EMAIL: bool = False
    #: Whether targets may have ``http://`` addresses.
    ALLOW_HTTP: bool = False
    #: Private networks that may be sent to after all, such as ``"127.0.0.0/8"`` in development.
    ALLOWED_NETWORKS: Sequence[str] = ()
    #: The ports that targets may have; ``None`` is any.
    ALLOWED_PORTS: Sequence[int] | None = None
    #: Hosts that are never sent to; ``None`` is the application's own names in ``ALLOWED_HOSTS``.
    FORBIDDEN_HOSTS: Sequence[str] | None = None
    #: The most bytes that a payload may have as JSON.
    PAYLOAD_LIMIT: int = 256 * 1024
    #: How many bytes of a response are read and kept.
    RESPONSE_LIMIT: int = 16 * 1024
    #: How many targets one owner may have.
    TARGETS_PER_OWNER: int = 100
    #: Deliveries per second that a replay makes pending again, unless it is told another rate.
    REPLAY_RATE: float = 50
    #: How often a user may have tests, retries and replays made, and read the feed, by the API; what is left out has no limit.
    API_THROTTLES: Mapping[str, str] = {
        "test": "30/minute",
        "retry": "60/minute",
        "replay": "60/hour",
        "feed": "120/minute",
    }
    #: Keys for secrets in the database, newest first; empty falls back to ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``.
    ENCRYPTION_KEYS: Sequence[str] = ()
    #: Who may send webhooks to the inbox: a source's name to its scheme, its secrets and its limits.
    INBOX: Mapping[str, Any] = {}
    #: The django-rq queue that the inbox's handlers run on; ``None`` leaves them to workers that look by themselves.
    INBOX_QUEUE: str | None = None
    #: Seconds (or a ``timedelta``) that finished events, held ones, and received messages are kept.
    RETENTION: float | timedelta = timedelta(days=30)

    if not TYPE_CHECKING:

        def __getattribute__(self, name: str) -> Any:
            default = super().__getattribute__(name)
            return getattr(settings, f"DJWEBHOOKS_{name}", default) if name.isupper() else default

    def names(self) -> list[str]:
        """The full names of all settings, such as ``DJWEBHOOKS_ENGINE``."""
        return [f"DJWEBHOOKS_{name}" for name in type(self).__annotations__]

    @property
    def own_hosts(self) -> Sequence[str]:
        """The hosts and patterns that the application itself answers to."""
        hosts: Sequence[str] = settings.ALLOWED_HOSTS
        return hosts

    def seconds(self, name: str) -> Seconds:
        """The value of the duration *name* in seconds."""
        return as_seconds(getattr(self, name))


conf = Settings()
