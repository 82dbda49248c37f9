"""One scenario with one system, in that system's environment: ``python -m benchmarks.trial SCENARIO`` prints its figures."""

import json
import os
import sys

import django
from django.core.management import call_command

from benchmarks.systems import SYSTEMS
from example_project.services import guarded_programs


def main() -> None:
    """Set Django up and play."""
    system = SYSTEMS[os.environ["BENCHMARK_SYSTEM"]]
    system.connect()
    django.setup()
    call_command("migrate", verbosity=0, run_syncdb=True)
    # They need the models.
    from benchmarks import scenarios
    from benchmarks.receiver import ReceiverClient
    from benchmarks.stage import Stage, TrialFailed

    receiver = ReceiverClient(os.environ["BENCHMARK_RECEIVER"])
    receiver.forget()
    with guarded_programs() as programs:
        stage = Stage(system, receiver, programs, float(os.environ["BENCHMARK_SCALE"]))
        try:
            figures = getattr(scenarios, sys.argv[1])(stage)
        except TrialFailed as error:
            sys.exit(str(error))
        finally:
            stage.stop_workers()
    sys.stdout.write(f"{json.dumps(figures)}\n")
    sys.stdout.flush()
    # Threads that still send, as drf-hooks' do, would keep this process for ever.
    os._exit(0)


if __name__ == "__main__":
    main()
