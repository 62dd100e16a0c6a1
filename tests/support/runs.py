"""Runs over data sets made up without a network, for what only looks back at them."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from extremal.explanations.explanation import Explanation
from extremal.jobs.plan import PLAN_FILE
from extremal.jobs.plan import PLAN_SCHEMA as PLANNED
from extremal.jobs.rows import SCHEMA, failed_row, row, run_settings
from extremal.jobs.store import open_store
from extremal.masking.domain import Domain
from extremal.masking.solvers import Path as PathSolver
from extremal.masking.solvers import rebuild_masks
from support import synthetic

SHAPE = (24, 32)
CLASSES = ("tabby cat", "tiger cat", "espresso", "missile", "football helmet")
SOLVER = PathSolver(steps=4, polish=2)
PART = 50  # rows a unit

Row = dict[str, Any]


def explanation(
    seed: int = 0,
    *,
    areas: tuple[float, ...] = synthetic.AREAS,
    shape: tuple[int, ...] = SHAPE,
    level: float = 1.0,
    luck: float = 1.0,
    target: int = 0,
    near: Explanation | None = None,
    **changes: Any,
) -> Explanation:
    """One input's explanation, whose masks are those of its fields.

    Args:
        level: by which effects are multiplied, so that larger areas are needed.
        luck: by which those of random masks are.
        target: index in `CLASSES`.
        near: an explanation whose fields these resemble.
    """
    generator = torch.Generator().manual_seed(seed)
    domain = Domain(shape)
    lattice = domain.exact_area_family(torch.empty(0)).parameter_shape
    fields = torch.randn(1, len(areas), 1, *lattice, generator=generator)
    if near is not None and near.fields is not None:
        fields = near.fields + 0.3 * fields
    made = synthetic.explanation(areas, shape, seed=seed)
    masks = rebuild_masks(SOLVER.settings(), fields, areas, domain)
    more = {"spacing": [], "dtype": "torch.float32", "mirror": False, "solver": SOLVER.settings()}
    return replace(
        made,
        fields=fields,
        masks=masks,
        mask_areas=masks.flatten(2).mean(2),
        scores=made.scores * level,
        binary_scores=made.binary_scores * level,
        unseen_scores=made.unseen_scores * level,
        control_scores=made.control_scores * luck,
        target=(target,),
        target_names=(CLASSES[target],),
        settings={**made.settings, **more, "seed": 0},
        **changes,
    )


def told(made: Explanation, key: str, **changes: Any) -> Row:
    """Its row."""
    thumbnail = changes.pop("thumbnail", jpeg(0))
    made_row = row(made, 0, key=key, path=f"/{key}", digest=f"hash of {key}", seconds=0.5, thumbnail=thumbnail)
    return {**made_row, **changes}


def rows_of(count: int, seed: int = 0) -> list[Row]:
    """Rows of all kinds: sufficient at every area, insufficient, suspect, and every seventh failed."""
    draw, found = np.random.default_rng(seed), []
    for index in range(count):
        key = f"picture-{index:05d}.jpg"
        if index % 7 == 6:
            found.append(failed_row(key, f"/{key}", None, f"an image must be readable, error {index % 2}", 0.1))
            continue
        level, luck = draw.uniform(0.7, 2.5), 4.0 if index % 5 == 4 else 1.0
        made = explanation(seed + index, level=level, luck=luck, target=int(draw.integers(len(CLASSES))))
        found.append(told(made, key, thumbnail=jpeg(index)))
    return found


def many(count: int, seed: int = 0, distinct: int = 140) -> Iterable[Row]:
    """So many rows, made of fewer."""
    base, draw = rows_of(distinct, seed), np.random.default_rng(seed)
    for index in range(count):
        one, key = dict(base[index % distinct]), f"folder/picture-{index:05d}.jpg"
        if one["status"] == "done":
            one["score_full"] = one["score_full"] + float(draw.normal())
            one["target"] = int(draw.integers(1000))
            one["target_name"] = f"class {one['target']}"
        yield {**one, "key": key, "content_hash": f"hash of {key}"}


def jpeg(seed: int, side: int = 24) -> bytes:
    """A small picture."""
    draw, buffer = np.random.default_rng(seed), io.BytesIO()
    small = Image.fromarray(draw.integers(0, 256, (4, 4, 3)).astype(np.uint8))
    small.resize((side, side)).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def settings(areas: Sequence[float] = synthetic.AREAS, **explain: Any) -> dict[str, Any]:
    """The settings of a run, as `extremal run` has them."""
    shared = run_settings(explanation(areas=tuple(areas)))
    rest = {"areas": list(areas), "target": "", "ask": "", "alternatives": 1, "refine": False, "batch": PART}
    return {"explain": {**shared, **explain}, **rest}


def run(folder: Path, rows: Iterable[Row], told: dict[str, Any] | None = None, planned: int | None = None) -> Path:
    """The folder of a run with these rows."""
    rows = list(rows)
    keys = [one["key"] for one in rows if not one["answer"]]
    keys += [f"missing-{index}" for index in range((planned or len(keys)) - len(keys))]
    plan = [{"unit": "", "key": key, "path": f"/{key}", "target": ""} for key in keys]
    with open_store(folder, told or settings(), SCHEMA) as store:
        store.write_table(PLAN_FILE, pa.Table.from_pylist(plan, PLANNED))
        for number, start in enumerate(range(0, len(rows), PART)):
            store.write(f"{number:08d}", rows[start : start + PART])
    return folder
