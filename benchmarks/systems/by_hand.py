"""What people write themselves: a row and a job for each delivery, the job sends it with ``requests.post``."""

import sys
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.systems.base import CELERY, PREFORK, System

if TYPE_CHECKING:
    from benchmarks.notes.models import Note


class ByHand(System):
    """The caller writes a row for each endpoint and enqueues its job at the commit."""

    def subscribe(self, urls: Sequence[str]) -> None:
        from benchmarks.notes.models import Endpoint

        Endpoint.objects.bulk_create(Endpoint(url=url, secret="only for benchmarks") for url in urls)

    def save(self, note: "Note") -> None:
        from django.db import transaction

        from benchmarks.notes.models import Call, Endpoint

        note.save()
        payload = {"id": note.pk, "text": note.text, "number": note.number, "fired_at": note.fired_at}
        calls = Call.objects.bulk_create(Call(endpoint=endpoint, payload=payload) for endpoint in Endpoint.objects.all())
        transaction.on_commit(lambda: self.enqueue([call.pk for call in calls]))

    @abstractmethod
    def enqueue(self, call_ids: Sequence[int]) -> None:
        """Put a job for each of the calls on the queue."""

    def count_recorded(self) -> int:
        from benchmarks.notes.models import Call

        return Call.objects.filter(status_code=200).count()


class RQJobs(ByHand):
    """A job of django-rq for each delivery, as NetBox does it; its worker forks for each job."""

    name = "rq-job"
    requirements = ("django-rq==4.*", "django~=5.2.0", "requests", "psycopg[binary]>=3.2.2")
    pace = 18
    apps = ("django_rq",)
    worker: Sequence[str] = (sys.executable, "-m", "django", "rqworker", "default")

    def enqueue(self, call_ids: Sequence[int]) -> None:
        import django_rq

        from benchmarks.notes.jobs import send_call

        queue = django_rq.get_queue("default")
        for call_id in call_ids:
            queue.enqueue(send_call, call_id)


class RQJobsWithoutFork(RQJobs):
    """The same with the worker that does not fork."""

    name = "rq-job-simple"
    pace = 80
    worker = (*RQJobs.worker, "--worker-class", "rq.SimpleWorker")


class CeleryTasks(ByHand):
    """A Celery task for each delivery, on Celery's own pool."""

    name = "celery-task"
    requirements = ("celery[redis]==5.*", "django~=5.2.0", "requests", "psycopg[binary]>=3.2.2")
    pace = 130
    imports = ("benchmarks.celery_app",)
    worker = (*CELERY, *PREFORK)

    def enqueue(self, call_ids: Sequence[int]) -> None:
        from benchmarks.notes.tasks import send_call

        for call_id in call_ids:
            send_call.delay(call_id)
