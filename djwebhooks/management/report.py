"""The numbers of ``stats`` as lines for a terminal."""

from collections.abc import Iterator

from djwebhooks.stats import QueueStats, Stats, TargetStats, WorkerStats
from djwebhooks.words import describe_count, describe_span, make_printable


def report(stats: Stats) -> Iterator[str]:
    """Write *stats* line by line."""
    many = Numbers(stats.limit)
    some = Numbers(stats.limit, are_of_some=stats.deliveries_pending >= stats.limit)
    waiting = f"{many(stats.events_waiting)} waiting{since(stats.oldest_waiting_age)}"
    yield f"Events      {waiting}, {many(stats.events_planned)} planned, {many(stats.events_failing)} failing to build"
    yield (
        f"Deliveries  {many(stats.deliveries_pending)} pending: {some(stats.deliveries_due)} due{since(stats.oldest_due_age)}, "
        f"{some(stats.deliveries_held)} held; {many(stats.failed_lately)} failed within a day"
    )
    yield (
        f"Targets     {stats.targets_paused} paused, {stats.targets_disabled} disabled, {stats.targets_suspended} suspended; "
        f"lanes: {stats.lanes_leased} leased by workers, {stats.lanes_due} due"
    )
    yield f"Engine      {stats.engine}"
    if stats.queue is not None:
        yield f"Queue       {describe_queue(stats.queue)}"
    yield "Workers" if stats.workers else "Workers     none at the moment"
    yield from map(describe_worker, stats.workers)
    if stats.targets:
        yield "Targets with most to do or most failures"
        yield f"  {'pending':>8} {'due':>8} {'failed':>8}  {'oldest':<8} {'state':<10} target"
        yield from (describe_target(target, some, many) for target in stats.targets)
    yield from (f"! {notice}" for notice in stats.notices)


class Numbers:
    """Writes a number, with a plus when there may be more: counting stopped there, or only some of all were looked at."""

    def __init__(self, limit: int, *, are_of_some: bool = False) -> None:
        self.limit = 0 if are_of_some else limit

    def __call__(self, number: int) -> str:
        return f"{number}+" if number >= self.limit else str(number)


def since(age: float | None) -> str:
    return f" (for {describe_span(age)})" if age is not None else ""


def describe_queue(queue: QueueStats) -> str:
    if queue.error:
        return f"{queue.name}: Redis does not answer"
    scheduler = "with a scheduler" if queue.has_scheduler else "without a scheduler"
    return f"{queue.name}: Redis answers; {describe_count(queue.workers, 'rqworker')}, {scheduler}"


def describe_worker(worker: WorkerStats) -> str:
    state = "alive" if worker.is_live else "DEAD, its lanes are freed by the next one"
    return (
        f"  {worker.name} at {worker.place}: {state}, last beat {describe_span(worker.heartbeat_age)} ago, "
        f"started {describe_span(worker.age)} ago, holds {describe_count(worker.lanes_leased, 'lane')}"
    )


def describe_target(target: TargetStats, some: Numbers, many: Numbers) -> str:
    oldest = describe_span(target.oldest_due_age) if target.oldest_due_age is not None else "-"
    numbers = f"{some(target.pending):>8} {some(target.due):>8} {many(target.failed_lately):>8}"
    return f"  {numbers}  {oldest:<8} {target.state:<10} {make_printable(target.target_url)} ({target.uid})"
