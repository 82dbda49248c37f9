"""What djwebhooks tells the application, and its own engine, about."""

from django.dispatch import Signal

#: After an attempt is recorded: ``delivery``, ``attempt``.
attempt_made = Signal()
#: After a delivery succeeded: ``delivery``.
delivery_succeeded = Signal()
#: After a delivery failed or expired, whether it was tried or not: ``delivery``. Not for what was cancelled: by people, by a
#: newer event that has taken its place, or by its target's filters.
delivery_failed = Signal()
#: After a target was disabled by its receiver's word or by its failures: ``target``, ``reason``.
target_disabled = Signal()

#: Work was written that a worker can do once the transaction commits: ``using``. The engine listens.
work_written = Signal()
