"""What models and migrations say of columns, indexes and tables that each database has in its own way."""

from collections.abc import Sequence
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.ddl_references import Statement
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models.functions import Now
from django.utils.deconstruct import deconstructible

from djwebhooks.database.clock import MARIADB_NOW, SQLITE_NOW

#: Where migrations import these from.
PACKAGE = "djwebhooks.database"
#: Does nothing, where a statement is expected.
NO_STATEMENT = "DO 0"


@deconstructible(path=f"{PACKAGE}.DatabaseNow")
class DatabaseNow(Now):
    """The database's own clock, as Django stores times."""

    def as_sqlite(self, compiler: Any, connection: BaseDatabaseWrapper, **extra: Any) -> Any:
        # Formatted twice: as a template here, and as a statement with its parameters.
        return self.as_sql(compiler, connection, template=SQLITE_NOW.replace("%", "%%%%"), **extra)

    def as_mysql(self, compiler: Any, connection: BaseDatabaseWrapper, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, template=MARIADB_NOW, **extra)


class ExactCharField(models.CharField):  # type: ignore[type-arg]  # not subscriptable at run time
    """A text that is compared letter by letter: to MariaDB's usual collations ``ORDER-1`` and ``order-1`` are one."""

    def deconstruct(self) -> Any:
        name, path, arguments, options = super().deconstruct()
        return name, path.replace(__name__, PACKAGE), arguments, options

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters = super().db_parameters(connection)
        # Not utf8mb4_bin, which takes no notice of spaces at the end.
        return parameters | {"collation": "utf8mb4_nopad_bin"} if connection.vendor == "mysql" else parameters


class PartialIndex(models.Index):
    """An index of the rows *where* something is so; MariaDB, which cannot have one, gets one of all rows on *otherwise*.

    Without *otherwise* it gets none: another index does there.
    """

    def __init__(self, *, fields: Sequence[str], name: str, where: models.Q, otherwise: Sequence[str] = ()) -> None:
        # Not as Django's own ``condition``, or every ``migrate`` there would warn of what is provided for.
        super().__init__(fields=fields, name=name)
        self.where = where
        self.otherwise = list(otherwise)

    def deconstruct(self) -> Any:
        path, arguments, options = super().deconstruct()
        return path.replace(__name__, PACKAGE), arguments, options | {"where": self.where, "otherwise": self.otherwise}

    def create_sql(self, model: Any, schema_editor: BaseDatabaseSchemaEditor, using: str = "", **options: Any) -> Statement:
        if schema_editor.connection.features.supports_partial_indexes:
            index = models.Index(fields=self.fields, name=self.name, condition=self.where)
        elif self.otherwise:
            index = models.Index(fields=self.otherwise, name=self.name)
        else:
            return Statement(NO_STATEMENT)
        return index.create_sql(model, schema_editor, using, **options)

    def remove_sql(self, model: Any, schema_editor: BaseDatabaseSchemaEditor, **options: Any) -> Any:
        if schema_editor.connection.features.supports_partial_indexes or self.otherwise:
            return super().remove_sql(model, schema_editor, **options)
        return Statement(NO_STATEMENT)


class VacuumAfter(Operation):
    """Have PostgreSQL clean a table up after so many dead rows, however large the table is; other databases need no such word.

    By its own rule it waits for a fifth of all rows. Meanwhile each look for work goes past the dead ones.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, model_name: str, rows: int) -> None:
        self.model_name = model_name
        self.rows = rows

    def state_forwards(self, app_label: str, state: ProjectState) -> None: ...

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: ProjectState, to_state: ProjectState) -> None:
        self._set(
            app_label,
            schema_editor,
            to_state,
            f"SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = {self.rows})",
        )

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: ProjectState, to_state: ProjectState) -> None:
        self._set(app_label, schema_editor, to_state, "RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold)")

    def describe(self) -> str:
        return f"Have PostgreSQL clean {self.model_name} up after {self.rows} dead rows"

    def _set(self, app_label: str, schema_editor: Any, state: ProjectState, how: str) -> None:
        model = state.apps.get_model(app_label, self.model_name)
        if schema_editor.connection.vendor == "postgresql" and self.allow_migrate_model(schema_editor.connection.alias, model):
            schema_editor.execute(f"ALTER TABLE {schema_editor.quote_name(model._meta.db_table)} {how}")
