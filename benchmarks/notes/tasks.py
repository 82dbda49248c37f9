"""The same jobs as Celery tasks."""

from celery import shared_task

from benchmarks.notes import jobs

send_call = shared_task(jobs.send_call)
