"""Read where it is written: on a replica an event, or a secret, may be missing or stale."""

from typing import Any, TypeVar

from django.db import models, router

M = TypeVar("M", bound=models.Model)


class WriterManager(models.Manager[M]):
    """A manager whose queries go to the database that the routers choose for writing, unless another one is named."""

    @property
    def db(self) -> str:
        hints: dict[str, Any] = self._hints  # type: ignore[attr-defined]  # missing in the stubs
        return self._db or router.db_for_write(self.model, **hints)

    def get_queryset(self) -> models.QuerySet[M]:
        return super().get_queryset().using(self.db)
