"""Tells which column or key of a file is taken for what, by its first record, for whoever describes a dataset."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from batchrank.errors import QueryError
from batchrank.job.sections import Columns
from batchrank.read import arrow, jsonl, textfiles
from batchrank.read.base import COLUMNAR, ColumnsError, Source, ended
from batchrank.read.columnar import names_in, opened
from batchrank.read.columns import DocumentRoles, RecordRoles, document_roles, record_roles
from batchrank.read.jsonl import Lines
from batchrank.read.jsonstream import Shape
from batchrank.read.names import Fields, Path
from batchrank.read.objects import listed

FILL_IN = "FILL-IN"
"""Stands for a name that only the user knows."""
_Roles = TypeVar("_Roles", RecordRoles, DocumentRoles)
_TEXT = ("csv", "tsv")
_KEY = re.compile(r"input\.columns\.(\w+)")


@dataclass(slots=True)
class Told:
    """What a file's first record tells.

    Attributes:
        names: the names in it; empty where it has none, or can't be read.
        roles: the name of each role's column, that of a candidate below the list's.
        unknown: roles that no name shows, or several.
    """

    names: tuple[str, ...] = ()
    roles: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @property
    def unused(self) -> list[str]:
        """Names that nothing was taken from."""
        used = {name.partition(".")[0] for name in self.roles.values()}
        return [name for name in self.names if name not in used]


def told(source: Source, columns: Columns) -> Told:
    """What a file of records that hold their texts tells; nothing of one that names documents by id only."""
    try:
        record, lists, candidate = _fields(source)
    except (OSError, pa.ArrowException, QueryError):
        return Told()
    found = Told(tuple(record))
    if not record:
        return found
    shape = "candidates" if lists else "text"
    own = _settled(found, record_roles, record, columns, shape)
    if own is None:
        return found
    found.roles |= _named(own)
    document, at = own.document, own.candidates or ()
    if at and FILL_IN not in at[0] and (inside := candidate(at)):
        document = _settled(found, document_roles, inside, columns, "text")
    found.roles |= {} if document is None else _named(document, at)
    found.roles = {role: name for role, name in found.roles.items() if FILL_IN not in name}
    return found


def _settled(
    found: Told, find: Callable[[Fields, Columns], _Roles], fields: Fields, columns: Columns, shape: str
) -> _Roles | None:
    """The roles, once those that no name shows are named as such; None where that doesn't help.

    ``shape`` is the role that is missing where there are neither candidates nor a document.
    """
    for _ in Columns.model_fields:
        try:
            return find(fields, columns)
        except ColumnsError as error:
            roles = [role for role in _KEY.findall(str(error)) if getattr(columns, role, "") is None]
            if not roles:
                return None
            role = shape if shape in roles else roles[0]
            name = f"{FILL_IN} {role}"
            found.unknown.append(role)
            columns, fields = columns.model_copy(update={role: name}), {**fields, name: None}
    return None


def _named(roles: RecordRoles | DocumentRoles, at: Path = ()) -> dict[str, str]:
    paths = {role: getattr(roles, role, None) for role in (*Columns.model_fields, "title", "query_image")}
    return {role: ".".join((*at, *path)) for role, path in paths.items() if path}


def _fields(source: Source) -> tuple[Fields, bool, Callable[[Path], Fields]]:
    """The names in a file's first record, whether one holds a list, and what tells those in its first candidate."""
    if source.format in COLUMNAR:
        with opened(source) as file:
            schema = file.schema
        lists = any(pa.types.is_nested(kind) and not pa.types.is_struct(kind) for kind in schema.types)
        return arrow.fields_of(schema), lists, lambda path: _in_list(arrow.type_at(schema, path), path)
    record = first_record(source)
    lists = any(isinstance(value, list) for value in record.values())
    return _names(record), lists, lambda path: _in_first(record, path)


def _in_list(kind: Any, path: Path) -> Fields:
    item = arrow.candidate_type(kind, ".".join(path))
    return arrow.fields_of(item) if pa.types.is_struct(item) else {}


def _in_first(record: Mapping[str, Any], path: Path) -> Fields:
    value: Any = record
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    value = listed(value) if isinstance(value, dict) else value
    first = value[0] if isinstance(value, list) and value else None
    return _names(first) if isinstance(first, dict) else {}


def _names(record: Mapping[str, Any]) -> Fields:
    return {name: tuple(value) if isinstance(value, dict) else None for name, value in record.items()}


def first_record(source: Source) -> dict[str, Any]:
    """The first record, or one of the names that all have; empty where there are no names.

    Raises:
        InputError: a file of JSON can't be read.
    """
    if source.format in COLUMNAR:
        return dict.fromkeys(names_in(source))
    if source.format in _TEXT:
        return dict.fromkeys(textfiles.names_in(source))
    try:
        lines = Lines(source)
        with lines.closing():
            lines.decompress()
            return {} if lines.shape is Shape.RESULTS else next(_objects(lines, source), {})
    except OSError as error:
        raise ended(source, error) from error


def _objects(lines: Lines, source: Source) -> Iterator[dict[str, Any]]:
    return (record for _, record in jsonl.records(lines, source) if type(record) is dict)
