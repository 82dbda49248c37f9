"""The systems that are measured: this project and its peers, each in a module of its own."""

from benchmarks.systems.base import System
from benchmarks.systems.by_hand import CeleryTasks, RQJobs, RQJobsWithoutFork
from benchmarks.systems.django_webhook import DjangoWebhook, DjangoWebhook2, DjangoWebhookOnGevent
from benchmarks.systems.drf_hooks import DrfHooks
from benchmarks.systems.outbound import OutboundWebhooks
from benchmarks.systems.own import OWN

PEERS: tuple[System, ...] = (
    DjangoWebhook(),
    DjangoWebhookOnGevent(),
    DjangoWebhook2(),
    DrfHooks(),
    OutboundWebhooks(),
    RQJobs(),
    RQJobsWithoutFork(),
    CeleryTasks(),
)
SYSTEMS: dict[str, System] = {system.name: system for system in (*OWN, *PEERS)}
