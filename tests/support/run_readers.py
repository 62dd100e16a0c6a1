"""Readers of run folders and manifests, for `readers.READERS`."""

import json
import random
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from extremal import jobs
from extremal.jobs.items import find_items
from extremal.jobs.run_status import STATUS_FILE, RunStatus
from extremal.report.run_folder import write_comparison, write_summary
from support.mutations import mutate_bytes, mutate_json, mutate_value
from support.runs import make_rows, make_settings, write_run

N_ROWS = 6


def write_run_folder(folder: Path) -> list[Path]:
    """Write two runs; the files of the first are changed."""
    for name in ("run", "other"):
        write_run(folder / name, make_rows(N_ROWS), make_settings())
        (folder / name / STATUS_FILE).write_text(json.dumps(asdict(RunStatus("done", N_ROWS, N_ROWS, 0))))
    return sorted(path for path in (folder / "run").rglob("*") if path.suffix in (".json", ".parquet"))


def mutate_run_file(rng: random.Random, content: bytes) -> bytes:
    """Change a JSON file, or rows of a table: values, columns and types."""
    if content[:4] != b"PAR1":
        return mutate_json(rng, content)
    if rng.random() < 0.3:
        return mutate_bytes(rng, content)
    table = pq.read_table(pa.BufferReader(content))
    name = rng.choice(table.column_names)
    sink = pa.BufferOutputStream()
    match rng.randrange(4):
        case 0:
            table = table.drop_columns([name])
        case 1:
            table = table.slice(0, rng.randrange(table.num_rows + 1))
        case 2:
            values = [rng.choice((0, 1.5, "x", None, [1, 2]))] * table.num_rows
            table = table.set_column(table.column_names.index(name), name, pa.array(values))
        case 3:
            rows = table.to_pylist()
            if rows:
                row = rng.choice(rows)
                row[name] = mutate_value(rng, row[name]) if not isinstance(row[name], bytes) else rng.randbytes(9)
            try:
                table = pa.Table.from_pylist(rows, schema=table.schema)
            except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
                table = table.slice(0, 1)
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def use_run(path: Path) -> None:
    """Read status, settings, table and summary of a run, and compare it with the other."""
    folder = next(parent for parent in path.parents if parent.name == "run")
    jobs.status(folder)
    jobs.settings(folder)
    jobs.table(folder)
    write_summary(folder, folder.parent / "summary")
    write_comparison(folder, folder.parent / "other", folder.parent / "compare")


def write_manifest(folder: Path) -> list[Path]:
    """Write manifests of images."""
    (folder / "a.csv").write_text("path,target\ncat.png,tabby\ndog.png,3\n")
    (folder / "b.csv").write_text('path\n"a,b.png"\nc.png\n')
    return [folder / "a.csv", folder / "b.csv"]


def read_manifest(path: Path) -> object:
    """Return the items of a manifest."""
    return find_items([str(path)])
