"""Which scenario is played with whom, on which database and how often; and what this project is to reach."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.systems.own import TRANSPORTS

OWN = tuple(f"djwebhooks-{transport}" for transport in TRANSPORTS)
OWN_IN_BREADTH = tuple(f"{name}-1000" for name in OWN)
OWN_ON_RQ = tuple(f"{name}-rq" for name in OWN)
FASTEST = OWN[-1:]
PEERS = ("django-webhook", "django-webhook2", "drf-hooks", "django-outbound-webhooks", "rq-job", "rq-job-simple", "celery-task")
#: Those whose callers do different things.
CALLERS = ("django-webhook", "drf-hooks", "django-outbound-webhooks", "rq-job", "celery-task")
CELERY = ("django-webhook", "django-webhook-gevent")
BOTH = ("postgresql", "sqlite")


@dataclass(frozen=True)
class Scenario:
    """A function of ``benchmarks.scenarios`` by its name, and the systems that play in it."""

    name: str
    own: Sequence[str]
    peers: Sequence[str] = ()
    databases: Sequence[str] = ("postgresql",)
    #: How often it is played when nothing else was asked for: what takes long, less often.
    rounds: int = 3
    #: Whether it is played when nothing else was asked for.
    is_short: bool = False


SCENARIOS = (
    Scenario("floor", OWN[:1]),
    Scenario("steps", OWN[:1], databases=BOTH, is_short=True),
    Scenario("worker", OWN, PEERS, BOTH, is_short=True),
    Scenario("caller", (OWN[0], OWN_ON_RQ[0]), CALLERS, BOTH, is_short=True),
    Scenario("latency", (*OWN, OWN_ON_RQ[0]), ("django-webhook", "rq-job"), rounds=2),
    Scenario("latency_after_pause", OWN_ON_RQ, rounds=2),
    Scenario("slow", (*OWN, *OWN_IN_BREADTH), CELERY, rounds=1),
    Scenario("hanging_1", OWN, CELERY, rounds=1),
    Scenario("hanging_50", OWN, rounds=1),
    Scenario("fan_out", FASTEST, rounds=2),
    Scenario("backlog", OWN, rounds=1),
    Scenario("growth", FASTEST, rounds=1),
    Scenario("processes", OWN, rounds=2),
)


@dataclass(frozen=True)
class Goal:
    """A figure of one of this project's systems, or its ratio to another system's in the same round, and its bound."""

    scenario: str
    system: str
    figure: str
    bound: float
    #: Another system, or one of the same system's figures, that the figure is divided by.
    against: str = ""
    #: Whether the bound is the most or the least that reaches the goal.
    is_most: bool = True
    databases: Sequence[str] = ("postgresql",)


CURL, REQUESTS, ON_RQ = "djwebhooks-curl", "djwebhooks-requests", "djwebhooks-requests-rq"
GOALS = (
    Goal("worker", CURL, "cpu_s_per_1000", 0.2, databases=BOTH),
    Goal("worker", CURL, "cpu_s_per_1000", 1 / 40, "django-webhook"),
    Goal("worker", CURL, "cpu_s_per_1000", 1 / 40, "rq-job"),
    Goal("worker", CURL, "cpu_s_per_1000", 1 / 40, "rq-job-simple"),
    Goal("worker", REQUESTS, "cpu_s_per_1000", 1.0, databases=BOTH),
    Goal("worker", REQUESTS, "cpu_s_per_1000", 1 / 8, "django-webhook"),
    Goal("worker", REQUESTS, "cpu_s_per_1000", 1 / 8, "rq-job"),
    Goal("worker", REQUESTS, "cpu_s_per_1000", 1 / 8, "rq-job-simple"),
    Goal("worker", CURL, "per_second", 20, "django-webhook", is_most=False),
    *(
        Goal("caller", system, figure, bound, against, databases=BOTH)
        for system in (REQUESTS, ON_RQ)
        for figure, bound, against in (
            ("ms_at_1", 0.6, "django-webhook"),
            ("ms_at_10", 0.08, "django-webhook"),
            ("ms_at_100", 1.15, "ms_at_1"),
        )
    ),
    *(Goal("slow", f"{system}{breadth}", "last_late_s", 3) for system in (CURL, REQUESTS) for breadth in ("", "-1000")),
    *(
        Goal(f"hanging_{count}", system, figure, 1.3)
        for count in (1, 50)
        for system in (CURL, REQUESTS)
        for figure in ("p50_ratio", "p99_ratio")
    ),
    *(Goal("latency", system, "p50_ms", 15) for system in (CURL, REQUESTS)),
    Goal("latency_after_pause", ON_RQ, "p50_ms_beyond_job", 30),
    *(Goal("fan_out", FASTEST[0], figure, bound) for figure, bound in (("seconds", 6), ("memory_mb", 150))),
    *(
        Goal("backlog", s, figure, bound)
        for s in (CURL, REQUESTS)
        for figure, bound in (("memory_mb", 250), ("cost_ratio", 1.15))
    ),
    *(Goal("growth", FASTEST[0], figure, 1.15) for figure in ("cost_ratio", "database_ratio")),
    *(Goal("processes", s, f"efficiency_of_{count}", 0.85, is_most=False) for s in (CURL, REQUESTS) for count in (2, 4)),
)
