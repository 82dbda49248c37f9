"""One measurement in a process of its own: ``python -m benchmarks.scenarios NAME URL`` prints its figures as JSON."""

import json
import statistics
import sys
import time

import django
from django.core.management import call_command
from django.db import transaction

EVENTS, TARGETS, FIRES = 500, 10, 300
PAYLOAD = {"text": "x" * 900, "number": 1}


def measure_fire(url: str) -> dict[str, float]:
    """Milliseconds that ``fire`` adds to a transaction, by the number of targets."""
    from django.contrib.auth.models import User

    from djwebhooks.events import fire
    from djwebhooks.models import WebhookTarget

    figures = {}
    for count in (1, 10, 100):
        owner = User.objects.create(username=f"owner {count}")
        for number in range(count):
            WebhookTarget.objects.register(f"{url}{number}", ["thing.happened"], owner=owner)
        times = []
        for _ in range(FIRES):
            with transaction.atomic():
                started = time.perf_counter()
                fire("thing.happened", PAYLOAD, owner=owner)
                times.append(time.perf_counter() - started)
        figures[f"ms_at_{count}"] = statistics.median(times) * 1000
    return figures


def measure_worker(url: str) -> dict[str, float]:
    """Deliveries per second of one worker, and its own CPU-seconds for 1000 recorded deliveries."""
    from django.contrib.auth.models import User

    from djwebhooks.events import fire
    from djwebhooks.models import Attempt, Delivery, WebhookTarget
    from djwebhooks.worker import Worker

    owner = User.objects.create(username="owner")
    for number in range(TARGETS):
        WebhookTarget.objects.register(f"{url}{number}", ["thing.happened"], owner=owner)
    with transaction.atomic():
        for _ in range(EVENTS):
            fire("thing.happened", PAYLOAD, owner=owner)
    wall, cpu = time.perf_counter(), time.process_time()
    Worker(burst=True).run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count = Delivery.objects.filter(status="succeeded").count()
    if not count == Attempt.objects.count() == EVENTS * TARGETS:
        raise SystemExit(f"Only {count} of {EVENTS * TARGETS} deliveries succeeded: nothing was measured.")
    return {"deliveries_per_second": count / wall, "cpu_seconds_per_1000": cpu / count * 1000}


SCENARIOS = {"fire": measure_fire, "worker": measure_worker}


def main() -> None:
    django.setup()
    call_command("migrate", verbosity=0)
    name, url = sys.argv[1:]
    sys.stdout.write(json.dumps(SCENARIOS[name](url)))


if __name__ == "__main__":
    main()
