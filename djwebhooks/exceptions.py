"""Every error that djwebhooks raises.

DjWebhooksError
├── ConfigurationError      (ImproperlyConfigured)
│   └── UnknownSender
├── InvalidEvent            (ValueError)
│   ├── UnknownEvent
│   └── InvalidPayload
│       ├── PayloadTooLarge
│       └── SchemaMismatch
├── CaptureError            (TypeError)
├── RebuildError            (LookupError)
├── IdempotencyConflict     (ValueError)
├── WrongTransaction        (RuntimeError)
├── InvalidTarget           (ValidationError)
│   ├── TooManyTargets
│   └── DeletedTarget
├── ForbiddenAddress
├── SenderFault
├── InvalidReplay           (ValueError)
├── InvalidAdoption         (ValueError)
├── AlreadyFinished         (ValueError)
├── AlreadyDispatched       (ValueError)
├── ErasedEvent             (ValueError)
├── KeyNotAccepted          (ValueError)
├── TargetLocked            (RuntimeError)
├── RejectedMessage         (ValueError)
├── ErasedMessage           (ValueError)
├── DeletedMessage          (LookupError)
├── LostTransaction         (RuntimeError)
├── InvalidSignature        (SuspiciousOperation)
└── UndecryptableSecret     (ValueError)
"""

from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation, ValidationError


class DjWebhooksError(Exception):
    """Something in djwebhooks went wrong."""

    def __init__(self, message: str = "", *args: object) -> None:
        super().__init__(message or self.__doc__, *args)


class ConfigurationError(DjWebhooksError, ImproperlyConfigured):
    """A DJWEBHOOKS_* setting has a value that cannot work."""


class UnknownSender(ConfigurationError):
    """DJWEBHOOKS_SENDERS does not have the sender, or leads to none."""


class InvalidEvent(DjWebhooksError, ValueError):
    """The event cannot be fired as it was given."""


class UnknownEvent(InvalidEvent):
    """The event's name, or its version, is not in the catalogue."""


class InvalidPayload(InvalidEvent):
    """The payload cannot be written as JSON."""


class PayloadTooLarge(InvalidPayload):
    """The payload is larger than DJWEBHOOKS_PAYLOAD_LIMIT."""


class SchemaMismatch(InvalidPayload):
    """The payload does not fit the event's schema in the catalogue."""


class CaptureError(DjWebhooksError, TypeError):
    """An argument of a hook cannot be captured by value."""


class RebuildError(DjWebhooksError, LookupError):
    """This process does not know a model or hook that a captured call names."""


class IdempotencyConflict(DjWebhooksError, ValueError):
    """The idempotency key was used before for another payload."""


class WrongTransaction(DjWebhooksError, RuntimeError):
    """fire() was called inside a transaction of another database than the events' own."""


class InvalidTarget(DjWebhooksError, ValidationError):
    """The target cannot receive webhooks as it was given."""

    def __init__(self, message: str = "", code: str | None = None) -> None:
        ValidationError.__init__(self, message or str(self.__doc__), code)


class TooManyTargets(InvalidTarget):
    """The owner has as many targets as DJWEBHOOKS_TARGETS_PER_OWNER allows."""


class DeletedTarget(InvalidTarget):
    """The target is not there any more: it was deleted."""


class ForbiddenAddress(DjWebhooksError):
    """The name has an address that webhooks are never sent to."""

    # Never an OSError: urllib3 would take it for a failed connection.


class SenderFault(DjWebhooksError):
    """A sender raised, or returned what cannot be sent."""


class InvalidReplay(DjWebhooksError, ValueError):
    """What is to be replayed, or how fast, cannot be."""


class InvalidAdoption(DjWebhooksError, ValueError):
    """What is to be adopted from another package is not there, or is nobody's."""


class AlreadyFinished(DjWebhooksError, ValueError):
    """The delivery or replay has ended, so it can no longer be cancelled."""


class AlreadyDispatched(DjWebhooksError, ValueError):
    """The event has become deliveries, so it can no longer be taken back as a whole."""


class ErasedEvent(DjWebhooksError, ValueError):
    """The event's data was erased, so it cannot be sent again."""


class KeyNotAccepted(DjWebhooksError, ValueError):
    """The receiver has not been seen to accept the newest key, so the old ones cannot be ended."""


class TargetLocked(DjWebhooksError, RuntimeError):
    """A transaction that goes on keeps the target locked: try again when it is over."""


class RejectedMessage(DjWebhooksError, ValueError):
    """The message had no valid signature, so no handler may run for it."""


class ErasedMessage(DjWebhooksError, ValueError):
    """What the message said was erased, so no handler can run for it."""


class DeletedMessage(DjWebhooksError, LookupError):
    """The message is not there any more: it was deleted, such as by pruning."""


class LostTransaction(DjWebhooksError, RuntimeError):
    """A handler went on after an error of the database, or asked for a rollback, so that nothing of it can be kept."""


class InvalidSignature(DjWebhooksError, SuspiciousOperation):
    """The signature does not match."""


class UndecryptableSecret(DjWebhooksError, ValueError):
    """No key of DJWEBHOOKS_ENCRYPTION_KEYS opens this secret."""
