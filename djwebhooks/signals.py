"""What djwebhooks tells the application, and its own engine, about."""

from django.dispatch import Signal

#: After an attempt is recorded: ``delivery``, ``attempt``.
attempt_made = Signal()
#: After a delivery succeeded: ``delivery``.
delivery_succeeded = Signal()
#: After a delivery ended without success: ``delivery``. Not for what its target does not want, as its filters say.
delivery_failed = Signal()
#: After a target was disabled by its receiver's word or by its failures: ``target``, ``reason``.
target_disabled = Signal()

#: Work was written that a worker can do once the transaction commits: ``using``. The engine listens.
work_written = Signal()
