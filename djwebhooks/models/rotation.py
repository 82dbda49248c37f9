"""A target's keys at work: what signs, how it is replaced, and what its receiver is known to make of it."""

from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from djwebhooks import database, signing
from djwebhooks.conf import conf
from djwebhooks.exceptions import KeyNotAccepted, TargetLocked, UndecryptableSecret
from djwebhooks.models.events import Event
from djwebhooks.models.keyring import UNKNOWN_KEY, Keyring, KeyState, is_later
from djwebhooks.models.lanes import Lane
from djwebhooks.models.operation import OperatedTarget


class SigningTarget(OperatedTarget):
    """A target that signs what is sent to it."""

    class Meta:
        abstract = True

    @property
    def secret(self) -> str:
        """The newest signing secret (v1), ``whsec_…``. Raises ``UndecryptableSecret`` when no key opens it."""
        return self.keyring.newest.secret

    @property
    def public_key(self) -> str:
        """The newest public key (v1a), ``whpk_…``, which is no secret. Raises ``UndecryptableSecret``."""
        return self.complete_keyring().newest.public_key

    @property
    def signature_versions(self) -> tuple[str, ...]:
        """Which signatures it gets, by its own word or the setting's. Raises ``ConfigurationError``."""
        return signing.check_versions(self.signatures.split() or conf.SIGNATURES)

    @property
    def keyring(self) -> Keyring:
        return Keyring.open(self.secrets)

    def complete_keyring(self) -> Keyring:
        """Return its keys with all of their pairs: those of a row from before there were pairs get theirs now.

        Raises ``UndecryptableSecret``, and ``TargetLocked`` when they cannot be written now.
        """
        ring, using = self.keyring, self._using()
        return ring if ring.is_complete else database.run_transaction(using, lambda: self._add_pairs(using))

    def _add_pairs(self, using: str) -> Keyring:
        rows = self.rows(using).filter(pk=self.pk)
        for target in database.lock_rows(rows, using):
            # Somebody else may have added them.
            ring: Keyring = target.keyring.complete()
            self.secrets = ring.seal()
            rows.update(secrets=self.secrets)
            return ring
        raise TargetLocked

    @sensitive_variables()
    def rotate_secret(self, overlap: float | timedelta = timedelta(days=1)) -> str:
        """Make a new secret, which is returned, and a new key pair.

        For *overlap* (seconds or ``timedelta``) the old ones sign as well. Raises ``DeletedTarget``.
        """
        using = self._using()
        length = overlap if isinstance(overlap, timedelta) else timedelta(seconds=overlap)
        with database.engine_transaction(using):
            # What somebody else has made in the meantime goes on signing, too.
            self.secrets = self.lock_row(using, "secrets")
            self._save_keys(self._keyring_if_possible().rotate(database.read_clock(using), length))
        return self.secret

    def finish_rotation(self, *, force: bool = False) -> None:
        """End all keys but the newest, at once.

        Raises ``KeyNotAccepted`` unless ``check_keys`` has shown that the receiver verifies, and accepts the newest key
        alone. With *force* that is not asked. Raises ``DeletedTarget``.
        """
        using = self._using()
        with database.engine_transaction(using):
            self.secrets = self.lock_row(using, "secrets")
            if len(self.keyring.live(database.read_clock(using))) > 1 and not force:
                self._check_accepted()
            self._save_keys(self.keyring.finish())

    @property
    def keys(self) -> list[KeyState]:
        """Its live keys, the newest first, with what ``check_keys`` found out about them. Raises ``UndecryptableSecret``."""
        lane = self._find_lane() or Lane()
        return [
            KeyState(key.id, key.public_key, key.created_at, key.until, *lane.read_key_check(key.id, self.target_url))
            for key in self.complete_keyring().live(timezone.now())
        ]

    @property
    def accepts_unknown_keys(self) -> bool | None:
        """Whether the receiver accepts what it cannot have verified; ``None`` before ``check_keys`` has got an answer."""
        lane = self._find_lane() or Lane()
        accepted_at, refused_at = lane.read_key_check(UNKNOWN_KEY, self.target_url)
        return None if accepted_at is None and refused_at is None else is_later(accepted_at, refused_at)

    def check_keys(self) -> list[Event]:
        """Find out what the receiver verifies with, by two ``webhook.test`` events to it alone; return them.

        The newest key alone signs the first, and a key that the receiver cannot know the second, which it should refuse.
        What it answers shows in ``keys`` and ``accepts_unknown_keys``. It says nothing of the target's health, and neither
        event is tried again by itself.
        """
        newest = self.complete_keyring().newest.id
        with transaction.atomic(using=self._using()):
            return [
                self.fire_test("Only the newest key has signed this: it should be accepted.", only_key=newest),
                self.fire_test("No key that you know has signed this: it should be refused.", only_key=UNKNOWN_KEY),
            ]

    def _save_keys(self, ring: Keyring) -> None:
        self.secrets = ring.seal()
        # Whoever makes its first request again is not to be shown this secret.
        self.forget_creation()
        self.save(update_fields=["secrets", "creation_key", "creation_request", "modified_at"])

    def _check_accepted(self) -> None:
        self._state.fields_cache.pop("lane", None)
        newest = self.keys[0]
        if self.accepts_unknown_keys:
            why = "accepts what it cannot have verified, so it is not known which keys it has"
        elif newest.is_accepted:
            return
        elif newest.last_refused_at is None:
            why = "has not answered to the newest key alone"
        else:
            why = "refuses the newest key"
        raise KeyNotAccepted(
            f"The rotation cannot be finished: the receiver of {self.target_url} {why}. "
            "Give it the newest key and check the keys, or finish with force=True."
        )

    def _keyring_if_possible(self) -> Keyring:
        try:
            return self.keyring
        except UndecryptableSecret:
            return Keyring()  # A new secret is the way out.
