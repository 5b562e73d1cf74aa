"""A SELECT over one table whose foreign keys are followed by LEFT JOIN.

The ORM would join required foreign keys with INNER JOIN, which loses a row whose reference dangles, and would go
through the default manager's filters or build an instance for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.db.models.expressions import Col

from backups.errors import BackupError
from backups.records.relations import AnyField, final_field, get_field, related_model, target_field
from backups.records.values import is_json_column

Path = tuple[str, ...]
Converter = Callable[[Any], Any]
_DATES = ("DateField", "DateTimeField", "TimeField")


class Selection:
    """Columns of ``model`` and of the rows it refers to. Every column is asked for once and known by its index."""

    def __init__(self, model: type[Model], connection: BaseDatabaseWrapper) -> None:
        self.model = model
        self.connection = connection
        self.key: list[int] = []
        self.converters: dict[int, list[Converter]] = {}
        self._columns: dict[str, int] = {}
        self._joins: dict[Path, tuple[str, str]] = {}
        self._dates: set[int] = set()
        for field in primary_key_fields(model):
            self.key.append(self.column((field.name,)))

    def column(self, path: Path) -> int:
        """Add the column that ``path`` leads to and return its index in the rows."""
        alias, field = self._resolve(path)
        sql = self._column_sql(alias, field)
        if sql not in self._columns:
            index = self._columns[sql] = len(self._columns)
            if final_field(field).get_internal_type() in _DATES:
                self._dates.add(index)
            if converters := self._converters_of(alias, field):
                self.converters[index] = converters
        return self._columns[sql]

    def sql(self, where: str = "", *, ordered: bool = True, limit: int | None = None, date: str = "{}") -> str:
        """Return the statement: ``where`` is a condition on the columns that ``key_sql`` returns.

        ``date`` is how a column with dates or times is to stand in it.
        """
        columns = [date.format(sql) if index in self._dates else sql for index, sql in enumerate(self._columns)]
        statement = f"SELECT {', '.join(columns)} FROM {self.source()}"
        if where:
            statement += f" WHERE {where}"
        if ordered:
            statement += f" ORDER BY {', '.join(self.key_sql())}"
        if limit is not None:
            statement += f" LIMIT {limit}"
        return statement

    def source(self) -> str:
        """Return the table and those that are joined to it."""
        table = self.connection.ops.quote_name(self.model._meta.db_table)
        return f"{table} t0" + "".join(f" LEFT JOIN {join}" for _, join in self._joins.values())

    def sql_of(self, index: int) -> str:
        """Return a column as it stands in the statement."""
        return list(self._columns)[index]

    def key_sql(self) -> list[str]:
        """Return the columns of the primary key as they stand in the statement."""
        return [self.sql_of(index) for index in self.key]

    def convert(self, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Apply the field and backend converters that Django would apply."""
        if not self.converters:
            return rows
        converted = [list(row) for row in rows]
        for index, converters in self.converters.items():
            for row in converted:
                value = row[index]
                try:
                    for convert in converters:
                        value = convert(value)
                except (ValueError, TypeError, AttributeError) as error:  # converters of Django raise any of these
                    raise self._unreadable(row, index) from error
                row[index] = value
        return converted

    def name_of(self, row: Sequence[Any]) -> str:
        """Name a row, but by no key that is more than a number: not everybody may see it."""
        key = [row[index] for index in self.key]
        named = f" {key}" if all(isinstance(part, int) for part in key) else ""
        return f"{self.model._meta.label_lower}{named}"

    def _unreadable(self, row: Sequence[Any], index: int) -> BackupError:
        return BackupError(
            f"{self.name_of(row)} has something in {self.sql_of(index).partition('.')[2]} that its field cannot read",
            hint="correct the row: a package without the value, or with another one, would not be a backup",
        )

    def _resolve(self, path: Path) -> tuple[str, AnyField]:
        model, alias = self.model, "t0"
        done: Path = ()
        for name in path[:-1]:
            alias, field, done = self._field(model, alias, done, name)
            done = (*done, name)
            model = related_model(field)
            alias = self._join(done, alias, field, model)
        alias, field, _ = self._field(model, alias, done, path[-1])
        return alias, field

    def _field(self, model: type[Model], alias: str, done: Path, name: str) -> tuple[str, AnyField, Path]:
        """Find a field, in the table of a multi-table parent where it is inherited."""
        field = get_field(model, name)
        while field not in model._meta.local_concrete_fields:
            link = cast("AnyField", model._meta.get_ancestor_link(field.model))
            model = related_model(link)
            done = (*done, link.name)
            alias = self._join(done, alias, link, model)
        return alias, field, done

    def _join(self, path: Path, alias: str, field: AnyField, model: type[Model]) -> str:
        if path not in self._joins:
            joined = f"t{len(self._joins) + 1}"
            table = self.connection.ops.quote_name(model._meta.db_table)
            condition = f"{self._column_sql(joined, target_field(field))} = {self._column_sql(alias, field)}"
            self._joins[path] = joined, f"{table} {joined} ON {condition}"
        return self._joins[path][0]

    def _column_sql(self, alias: str, field: AnyField) -> str:
        return f"{alias}.{self.connection.ops.quote_name(str(field.column))}"

    def _converters_of(self, alias: str, field: AnyField) -> list[Converter]:
        field = final_field(field)  # a foreign key's own type would not be converted
        column = Col(alias, field)
        if is_json_column(field):
            return []  # read as text: see values.py
        operations = self.connection.ops.get_db_converters(column)
        converters = operations + column.get_db_converters(self.connection)
        bound = [_bind(converter, column, self.connection) for converter in converters]
        return [_never_none(bound[0]), *bound[1:]] if operations and field.get_internal_type() in _DATES else bound


def primary_key_fields(model: type[Model]) -> Sequence[AnyField]:
    """Return the one field of a primary key, or the several of a composite one."""
    return model._meta.pk_fields


def _never_none(convert: Converter) -> Converter:
    """Refuse what is no date: SQLite's converters give None then, as for NULL."""

    def converted(value: Any) -> Any:
        found = convert(value)
        if found is None and value is not None:
            raise ValueError("not a date")
        return found

    return converted


def _bind(converter: Callable[..., Any], column: Col, connection: BaseDatabaseWrapper) -> Converter:
    return lambda value: converter(value, column, connection)
