"""Read parquet files that may be damaged, incomplete, or written by others."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, quote

MAX_ROWS = 100_000_000  # of a file
OPTIONAL = {b"extremal": b"optional"}  # metadata of a column that earlier versions did not write: it is null there
MAX_VALUES = 1_000_000_000  # of all columns that are read; repeated ones take no space in a file


def read_parquet(path: Path, schema: pa.Schema, noun: str, remedy: str) -> pa.Table:
    """Read the columns of a schema.

    Args:
        path: of the file.
        schema: names and types of the columns to read; others are ignored.
        noun: for messages, with its article: "a part of a run".
        remedy: for messages.

    Raises:
        ExtremalValueError: there is no such file, it is damaged, or it lacks a column that is not `OPTIONAL`, or has
            one of another type.
    """
    check_file(path, noun, remedy=remedy)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            problem = _find_problem(file, schema)
            if not problem:
                table = _fill(file.read(columns=schema.names, use_threads=True), schema).cast(schema)
                table.validate(full=True)
                return table
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, MemoryError) as error:
        raise ExtremalValueError(
            f"{noun} must be a complete parquet file, {quote(path)} is not ({type(error).__name__}); {remedy}"
        ) from None
    raise ExtremalValueError(f"{noun} must have the columns of this version, {quote(path)} {problem}; {remedy}")


def count_rows(path: Path, noun: str, remedy: str) -> int:
    """Return the number of rows without reading them.

    Raises:
        ExtremalValueError: there is no such file, or it is damaged.
    """
    check_file(path, noun, remedy=remedy)
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ExtremalValueError(
            f"{noun} must be a complete parquet file, {quote(path)} is not ({type(error).__name__}); {remedy}"
        ) from None


def _fill(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a schema in their order; those that it lacks are null."""
    for column in schema:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(table.num_rows, column.type))
    return table.select(schema.names)


def _find_problem(file: pq.ParquetFile, schema: pa.Schema) -> str:
    """Return how the columns of a file differ from a schema; empty: they do not."""
    found, metadata = file.schema_arrow, file.metadata
    for column in schema:
        count = found.names.count(column.name)
        if count == 0 and column.metadata == OPTIONAL:
            continue
        if count != 1:
            return f"has {count} columns {column.name!r}"
        kind = found.field(column.name).type
        if kind != column.type:
            return f"has {column.name!r} of type {quote(kind)[1:-1]} instead of {column.type}"
    if metadata.num_rows > MAX_ROWS:
        return f"has {metadata.num_rows} rows"
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    read = [column for column in columns if column.path_in_schema.partition(".")[0] in schema.names]
    n_values = sum(column.num_values for column in read)
    return f"has {n_values} values" if n_values > MAX_VALUES else ""
