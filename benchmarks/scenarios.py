"""The scenarios: each plays on a stage with one system, and returns its figures."""

import json
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf, isfinite
from statistics import median
from typing import Any

from django.db import connection, transaction
from django.db.models import Model

from benchmarks.notes.models import PlainNote
from benchmarks.processes import cpu_seconds, peak_memory
from benchmarks.stage import TEXT, Stage, TrialFailed, in_fork, middle, percentile
from example_project.services import wait_until

Figures = dict[str, float]

#: Seconds of work that a trial gives a system, by its pace, and to how many endpoints each note goes.
SECONDS, TARGETS = 4, 10
#: SQL of a row's own ``uid``.
UID = "gen_random_uuid()"


# -- what a delivery costs ---------------------------------------------------------------------------------------------


def worker(stage: Stage) -> Figures:
    """The worker's own processor time for 1000 recorded deliveries, and how many it makes in a second.

    Notes are saved in one transaction, each for ten endpoints that answer at once; the worker is warm. Its time counts from
    then until the last delivery is recorded: dispatching, sending and recording. Their number per second counts from the
    commit on, so that whoever saves does not share the processors with it, and to the last arrival.
    """
    stage.subscribe(TARGETS)
    stage.start_workers(targets=TARGETS)
    notes = stage.scaled(stage.system.pace * SECONDS / TARGETS, 10)
    return drain(stage, notes, TARGETS, saving=measure_saving(stage, notes))


def measure_saving(stage: Stage, notes: int) -> float:
    """Processor seconds that saving the notes alone costs, where the sender is in the same process; else none of its."""
    if stage.system.worker:
        return 0.0
    before = time.process_time()
    for _ in range(notes):
        stage.save(PlainNote)
    return time.process_time() - before


def drain(stage: Stage, notes: int, targets: int, saving: float = 0.0) -> Figures:
    """Save notes and have the workers deliver all of them."""
    expected = stage.count() + notes * targets
    cpu, receiver_cpu, started = stage.cpu(), stage.receiver.cpu(), time.monotonic()
    committed_at = stage.save_many(notes)
    sent_before = stage.count()
    stage.wait_until(lambda: stage.count() >= expected, 300, f"not all of {notes * targets} deliveries were recorded")
    cpu = stage.cpu() - cpu - saving
    last = max(arrival.arrived_at for arrival in stage.arrivals(started))
    return {
        "cpu_s_per_1000": cpu / (notes * targets) * 1000,
        "per_second": (expected - sent_before) / (last - committed_at),
        "receiver_share": (stage.receiver.cpu() - receiver_cpu) / (last - started),
    }


def processes(stage: Stage) -> Figures:
    """Deliveries for a processor second of two and of four worker processes, as a part of what one makes of it."""
    targets = 100
    stage.subscribe(targets)
    figures = {}
    for count in (1, 2, 4):
        stage.start_workers(count, targets=targets)
        time.sleep(count)  # Only the first has sent something: the others are to be there, too.
        figures[f"cpu_s_per_1000_of_{count}"] = drain(stage, stage.scaled(100, 5), targets)["cpu_s_per_1000"]
        stage.stop_workers()
    for count in (2, 4):
        figures[f"efficiency_of_{count}"] = figures["cpu_s_per_1000_of_1"] / figures[f"cpu_s_per_1000_of_{count}"]
    return figures


# -- what the caller pays ----------------------------------------------------------------------------------------------


def caller(stage: Stage) -> Figures:
    """Milliseconds that a note's save takes longer when 1, 10 and 100 endpoints are subscribed to it.

    Notes and plain ones, of which nobody hears, are saved by turns, each in a transaction; no worker runs. Each number has a
    process of its own.
    """
    figures, there = {}, 0
    for count in (1, 10, 100):
        stage.system.subscribe(stage.receiver.urls(count)[there:])
        there = count
        times = stage.scaled(300 / count**0.5, 5)
        figures[f"ms_at_{count}"] = in_fork(partial(measure_saves, stage, times)) * 1000
    return figures


def measure_saves(stage: Stage, times: int) -> float:
    """Seconds that a note takes longer than a plain one right after it, without the wait for the disk, that comes in steps."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = off")
    for _ in range(5):
        stage.save()
        stage.save(PlainNote)
    return median(stage.save() - stage.save(PlainNote) for _ in range(times))


# -- how soon ----------------------------------------------------------------------------------------------------------


def latency(stage: Stage) -> Figures:
    """Milliseconds from a save to the arrival, now and then a note, one endpoint, a warm worker that has nothing else to do."""
    stage.subscribe(1)
    stage.start_workers(targets=1)
    return wait_for_single_notes(stage, stage.scaled(60, 5), shortest=0.05, longest=0.35)


def latency_after_pause(stage: Stage) -> Figures:
    """The same with seconds between the notes, so that each wakes an RQ job of its own; beside it, what any RQ job takes."""
    stage.subscribe(1)
    stage.start_workers(targets=1)
    figures = wait_for_single_notes(stage, stage.scaled(12, 2), shortest=1.7, longest=2.3)
    job = wait_for_jobs(stage)
    return figures | {"job_p50_ms": job, "p50_ms_beyond_job": figures["p50_ms"] - job}


def wait_for_single_notes(stage: Stage, count: int, *, shortest: float, longest: float) -> Figures:
    started = time.monotonic()
    for number in range(count):
        time.sleep(random.uniform(shortest, longest))
        stage.save()
        time.sleep(0.05)  # To ask the receiver takes the processors from what is measured.
        stage.wait_until(partial(have_arrived, stage, started, number + 1), 60, "a note did not arrive")
    milliseconds = [arrival.latency * 1000 for arrival in stage.arrivals(started)]
    return {"p50_ms": middle(milliseconds), "p99_ms": percentile(milliseconds, 99)}


def have_arrived(stage: Stage, since: float, count: int) -> bool:
    return len(stage.arrivals(since)) >= count


def wait_for_jobs(stage: Stage) -> float:
    """Milliseconds from the enqueueing of a job that does nothing until it runs, on the same RQ worker."""
    import django_rq

    from benchmarks.notes.jobs import read_time

    milliseconds = []
    for _ in range(stage.scaled(20, 5)):
        enqueued_at = time.monotonic()
        job: Any = django_rq.get_queue("default").enqueue(read_time)
        stage.wait_until(partial(job_has_run, job), 60, "a job did not run")
        milliseconds.append((job.return_value() - enqueued_at) * 1000)
    return middle(milliseconds)


def job_has_run(job: Any) -> bool:
    return job.return_value(refresh=True) is not None


# -- slow and hanging receivers ----------------------------------------------------------------------------------------


def slow(stage: Stage) -> Figures:
    """200 notes a second for 30 seconds for one endpoint that takes 1.5 seconds for each: how late the last one arrives.

    A system that cannot keep up is watched for a while, and the arrival of the last is reckoned from the rate at which notes
    arrive then.
    """
    stage.subscribe(1, "1500")
    stage.start_workers(targets=1)
    rate, seconds, patience = 200, stage.scaled(30, 3), 20
    started = time.monotonic()
    late = stage.save_steadily(rate, seconds)
    wait_until(lambda: len(stage.arrivals(started)) >= rate * seconds, patience)
    arrivals = stage.arrivals(started)
    left = rate * seconds - len(arrivals)
    in_the_end = [arrival for arrival in arrivals if arrival.arrived_at > time.monotonic() - patience] if left else []
    last = max(arrivals, key=lambda arrival: arrival.fired_at)
    return {
        "last_late_s": patience + left / (max(1, len(in_the_end)) / patience) if left else last.latency,
        "p99_late_s": percentile([arrival.latency for arrival in arrivals], 99),
        "arrived": len(arrivals) / (rate * seconds),
        "saved_late_s": late,
    }


def hanging_1(stage: Stage) -> Figures:
    """1 endpoint that never answers beside 9 healthy ones, 6 notes a second: how much later these get theirs."""
    return compare_hanging(stage, healthy=9, hanging=1, rate=6)


def hanging_50(stage: Stage) -> Figures:
    """50 endpoints that never answer beside 50 healthy ones, 3 notes a second: how much later these get theirs."""
    return compare_hanging(stage, healthy=50, hanging=50, rate=3)


def compare_hanging(stage: Stage, *, healthy: int, hanging: int, rate: float) -> Figures:
    """Take the healthy endpoints' latency without the others, then with them."""
    stage.subscribe(healthy)
    stage.start_workers(targets=healthy)
    alone = take_latencies(stage, healthy, rate)
    stage.subscribe(hanging, "hang")
    beside = take_latencies(stage, healthy, rate)
    return {
        "p50_ms_alone": middle(alone) * 1000,
        "p99_ms_alone": percentile(alone, 99) * 1000,
        "p50_ratio": middle(beside) / middle(alone),
        "p99_ratio": percentile(beside, 99) / percentile(alone, 99),
        "arrived": sum(map(isfinite, beside)) / len(beside),
    }


def take_latencies(stage: Stage, healthy: int, rate: float) -> list[float]:
    """Seconds from the save to the arrival at healthy endpoints; infinite for what is not there a while after the last."""
    # So long that the latest of a hundred are those of several notes, and that requests which hang are given up meanwhile.
    seconds, started = stage.scaled(45, 3), time.monotonic()
    expected = healthy * round(rate * seconds)
    in_fork(partial(stage.save_steadily, rate, seconds))
    wait_until(lambda: len(stage.arrivals(started, "0")) >= expected, 5)
    latencies = [arrival.latency for arrival in stage.arrivals(started, "0")]
    return latencies + [inf] * (expected - len(latencies))


# -- growth ------------------------------------------------------------------------------------------------------------


def fan_out(stage: Stage) -> Figures:
    """One note for 100,000 endpoints: seconds until all its deliveries exist, while the worker that makes them sends them too."""
    from djwebhooks.dispatch import has_waiting
    from djwebhooks.models import Subscription, WebhookTarget

    stage.subscribe(1)
    stage.start_workers(targets=1)
    target = WebhookTarget.objects.get()
    others = {"uid": UID, "digest": "md5(nth::text)", "target_url": "target_url || nth"}
    copy_row(target, stage.scaled(100_000, 100) - 1, others)
    with connection.cursor() as cursor:
        columns = f"INSERT INTO {Subscription._meta.db_table} (target_id, event)"
        cursor.execute(f"{columns} SELECT id, 'note.saved' FROM {WebhookTarget._meta.db_table} WHERE id <> %s", [target.pk])
    committed_at = stage.save_many(1)
    stage.wait_until(lambda: not has_waiting("default"), 300, "not all deliveries were made")
    return {"seconds": time.monotonic() - committed_at, "memory_mb": stage.memory()}


def copy_row(row: Model, count: int, others: Mapping[str, str]) -> None:
    """Insert so many copies of a row in one statement. *others* are columns that differ: SQL, in which ``nth`` counts them."""
    names = [str(field.column) for field in row._meta.concrete_fields if not field.primary_key]
    columns, values, table = ", ".join(names), ", ".join(others.get(name, name) for name in names), row._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({columns}) SELECT {values} FROM {table}, generate_series(1, %s) AS nth WHERE id = %s",
            [count, row.pk],
        )
        cursor.execute("ANALYZE")


def backlog(stage: Stage) -> Figures:
    """A million events wait, each for one of a hundred endpoints: the worker's memory, and a delivery's cost, against a thousand.

    The worker runs in this process, for a while only, in which it dispatches more than it sends. So what dispatching an event
    costs is measured before, alone, and the cost of a delivery is that of its dispatch and that of the rest.
    """
    from djwebhooks.dispatch import dispatch
    from djwebhooks.models import Event
    from djwebhooks.worker import Worker

    subscribe_each(stage)
    few = []
    for _ in range(3):
        insert_events(1000)
        few.append(use_processor(lambda: Worker(burst=True).run())[0] / 1000)
    many = stage.scaled(1_000_000, 5000)
    insert_events(many)
    dispatching, count = use_processor(lambda: sum(dispatch("default") or 0 for _ in range(stage.scaled(40, 2))))
    dispatch_cost = dispatching / count
    waiting = Event.objects.waiting().count()
    working, recorded = use_processor(lambda: Worker(budget=stage.scaled(10, 2)).run())
    dispatched = waiting - Event.objects.waiting().count()
    cost = dispatch_cost + (working - dispatched * dispatch_cost) / recorded
    return {
        "memory_mb": peak_memory(os.getpid()),
        "cost_ratio": cost / median(few),
        "cpu_s_per_1000": cost * 1000,
        "dispatch_cpu_s_per_1000": dispatch_cost * 1000,
        "dispatched_for_each_sent": dispatched / recorded,
    }


def growth(stage: Stage) -> Figures:
    """What a delivery costs when the tables hold ten million finished ones and 100,000 targets, against nearly empty tables.

    The worker runs in this process. The database's cost is what the process needs that serves this connection.
    """
    from djwebhooks.models import WebhookTarget

    subscribe_each(stage)
    work_off_thousand()
    before = [work_off_thousand() for _ in range(5)]
    copy_row(WebhookTarget.objects.all()[0], stage.scaled(100_000, 100), {"uid": UID, "digest": "md5(nth::text)"})
    copy_finished(stage.scaled(10_000_000, 1000))
    tidy_up()
    work_off_thousand()
    after = [work_off_thousand() for _ in range(5)]
    (cpu_before, database_before), (cpu, database) = (map(median, zip(*times, strict=True)) for times in (before, after))
    return {
        "cpu_s_per_1000": cpu,
        "cost_ratio": cpu / cpu_before,
        "database_cpu_s_per_1000": database,
        "database_ratio": database / database_before,
    }


def tidy_up() -> None:
    """Have the database do now what it would do beside the worker, on the same processors, after so many rows came at once."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")
        cursor.execute("CHECKPOINT")


def work_off_thousand() -> tuple[float, float]:
    """Processor seconds of this process, and of the database's that serves it, for 1000 events with one delivery each."""
    from djwebhooks.worker import Worker

    insert_events(1000)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        server: int = cursor.fetchone()[0]
    before = cpu_seconds(server)
    cpu, _ = use_processor(lambda: Worker(burst=True).run())
    return cpu, cpu_seconds(server) - before


def copy_finished(count: int) -> None:
    """Have so many more events, each with a body and a delivery that succeeded at its first attempt."""
    from djwebhooks.models import Attempt, Body, Delivery, Event, Lane

    delivery = Delivery.objects.filter(status="succeeded").latest("pk")
    sources = (delivery.event, delivery.event.bodies.get(), delivery, delivery.attempts.get())
    first_event, first_delivery = Event.objects.latest("pk").pk, Delivery.objects.latest("pk").pk
    event_id, delivery_id = (f"{first} + nth" for first in (first_event, first_delivery))
    others = {
        Event: {"uid": UID},
        Body: {"event_id": event_id},
        Delivery: {"uid": UID, "event_id": event_id, "sequence": f"{delivery.sequence} + nth"},
        Attempt: {"delivery_id": delivery_id},
    }
    for source in sources:
        copy_row(source, count, others[type(source)])
    Lane.objects.filter(pk=delivery.target_id).update(tail=delivery.sequence + count)


def use_processor(work: Callable[[], int]) -> tuple[float, int]:
    """Return the processor seconds of this process that *work* takes, and what it returns."""
    before = time.process_time()
    result = work()
    return time.process_time() - before, result


def subscribe_each(stage: Stage) -> None:
    """Have a hundred endpoints, and each event for one of them, by its identifier."""
    from djwebhooks.models import WebhookTarget

    for number, url in enumerate(stage.receiver.urls(100)):
        WebhookTarget.objects.register(url, ["note.saved"], owner=None, identifier=str(number))


def insert_events(count: int) -> None:
    """Have so many events wait."""
    from djwebhooks.events import fire

    event = fire("note.saved", {"text": TEXT, "fired_at": time.monotonic()}, owner=None, identifier="0")
    copy_row(event, count - 1, {"uid": UID, "identifier": "(nth %% 100)::text"})


# -- the worker alone --------------------------------------------------------------------------------------------------


def steps(stage: Stage) -> Figures:
    """Microseconds of processor time for a delivery, by the step of the worker's turn, with a transport that answers at once.

    Notes for ten endpoints, 200 answers a turn. Then notes one at a time: the milliseconds of processor time and the statements
    between a worker's look and its first request.
    """
    stage.subscribe(TARGETS)
    send_alone(stage, 20)  # Whatever is done once.
    worker, count = send_alone(stage, stage.scaled(1000, 20))
    figures = {f"us_{step}": seconds / count * 1e6 for step, seconds in worker.spent.items()}
    singles = [send_alone(stage, 1)[0].first_request for _ in range(stage.scaled(60, 10))]
    cpu, statements = (median(values) for values in zip(*filter(None, singles), strict=True))
    return {"us_all": sum(figures.values()), **figures, "one_cpu_ms": cpu * 1000, "one_statements": statements}


def send_alone(stage: Stage, notes: int) -> tuple[Any, int]:
    """Save notes and have them sent by a worker in this process; return it, and the number of deliveries."""
    from benchmarks.alone import Instant, TimedWorker

    stage.save_many(notes)
    worker = TimedWorker(Instant(200))
    return worker, worker.run()


# -- the floor ---------------------------------------------------------------------------------------------------------


def floor(stage: Stage) -> Figures:
    """What the client and the database can do at all, and so what the receiver can bear.

    Requests of the same size with nothing but pycurl's ``CurlMulti``, 64 at once; then two small rows for each, by
    ``executemany`` without the ORM. Processor seconds for 1000, of this process.
    """
    count = stage.scaled(20_000, 1000)
    receiver_cpu, cpu, started = stage.receiver.cpu(), time.process_time(), time.monotonic()
    post_all(stage.receiver.urls(TARGETS) * (count // TARGETS))
    cpu, took = time.process_time() - cpu, time.monotonic() - started
    if stage.receiver.count() != count:
        raise TrialFailed(f"{stage.receiver.count()} of {count} requests arrived.")
    return {
        "request_cpu_s_per_1000": cpu / count * 1000,
        "record_cpu_s_per_1000": insert_rows(count) / count * 1000,
        "requests_per_second": count / took,
        "receiver_share": (stage.receiver.cpu() - receiver_cpu) / took,
    }


def post_all(urls: Sequence[str]) -> None:
    """Post to each of the addresses, 64 at once."""
    import pycurl

    body = json.dumps({"text": TEXT, "fired_at": 0}).encode()
    multi, waiting = pycurl.CurlMulti(), list(urls)

    def begin(curl: Any) -> None:
        curl.setopt(pycurl.URL, waiting.pop())
        multi.add_handle(curl)

    curls = [pycurl.Curl() for _ in range(min(64, len(waiting)))]
    for curl in curls:
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.WRITEFUNCTION, lambda data: len(data))
        begin(curl)
    running = len(curls)
    while running:
        multi.perform()
        _, done, failed = multi.info_read()
        if failed:
            raise TrialFailed(f"The receiver failed: {failed}")
        for curl in done:
            multi.remove_handle(curl)
            running -= 1
            if waiting:
                begin(curl)
                running += 1
        if not done:
            multi.select(0.1)


def insert_rows(count: int) -> float:
    """Insert two rows for each, 500 in a transaction; return this process's processor seconds."""
    sql = "INSERT INTO notes_plainnote (text, number, fired_at) VALUES (%s, %s, %s)"
    started = time.process_time()
    for first in range(0, 2 * count, 1000):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.executemany(sql, [("a short text", number, 0.0) for number in range(first, first + 1000)])
    return time.process_time() - started
