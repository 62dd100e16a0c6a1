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
from extremal.jobs.rows import SCHEMA, build_failed_row, build_row, run_settings
from extremal.jobs.store import open_store
from extremal.masking.domain import Domain
from extremal.masking.solvers import Path as PathSolver
from extremal.masking.solvers import rebuild_masks
from support import synthetic

SHAPE = (24, 32)
CLASSES = ("tabby cat", "tiger cat", "espresso", "missile", "football helmet")
SOLVER = PathSolver(steps=4, polish=2)
ROWS_PER_UNIT = 50  # rows a unit

Row = dict[str, Any]


def make_explanation(
    seed: int = 0,
    *,
    areas: tuple[float, ...] = synthetic.AREAS,
    shape: tuple[int, ...] = SHAPE,
    effect_factor: float = 1.0,
    control_factor: float = 1.0,
    target: int = 0,
    similar_to: Explanation | None = None,
    **changes: Any,
) -> Explanation:
    """One input's explanation, whose masks are those of its fields.

    Args:
        effect_factor: by which effects are multiplied, so that larger areas are needed.
        control_factor: by which those of random masks are.
        target: index in `CLASSES`.
        similar_to: an explanation whose fields these resemble.
    """
    generator = torch.Generator().manual_seed(seed)
    domain = Domain(shape)
    lattice = domain.exact_area_family(torch.empty(0)).parameter_shape
    fields = torch.randn(1, len(areas), 1, *lattice, generator=generator)
    if similar_to is not None and similar_to.fields is not None:
        fields = similar_to.fields + 0.3 * fields
    made = synthetic.explanation(areas, shape, seed=seed)
    masks = rebuild_masks(SOLVER.settings(), fields, areas, domain)
    more = {"spacing": [], "dtype": "torch.float32", "mirror": False, "solver": SOLVER.settings()}
    return replace(
        made,
        fields=fields,
        masks=masks,
        mask_areas=masks.flatten(2).mean(2),
        scores=made.scores * effect_factor,
        binary_scores=made.binary_scores * effect_factor,
        unseen_scores=made.unseen_scores * effect_factor,
        control_scores=made.control_scores * control_factor,
        target=(target,),
        target_names=(CLASSES[target],),
        settings={**made.settings, **more, "seed": 0},
        **changes,
    )


def make_row(made: Explanation, key: str, **changes: Any) -> Row:
    """Its row."""
    thumbnail = changes.pop("thumbnail", make_jpeg(0))
    made_row = build_row(made, 0, key=key, path=f"/{key}", digest=f"hash of {key}", seconds=0.5, thumbnail=thumbnail)
    return {**made_row, **changes}


def make_rows(count: int, seed: int = 0) -> list[Row]:
    """Rows of all kinds: sufficient at every area, insufficient, suspect, and every seventh failed."""
    draw, found = np.random.default_rng(seed), []
    for index in range(count):
        key = f"picture-{index:05d}.jpg"
        if index % 7 == 6:
            found.append(build_failed_row(key, f"/{key}", None, f"an image must be readable, error {index % 2}", 0.1))
            continue
        level, luck = draw.uniform(0.7, 2.5), 4.0 if index % 5 == 4 else 1.0
        made = make_explanation(seed + index, effect_factor=level, control_factor=luck, target=int(draw.integers(len(CLASSES))))
        found.append(make_row(made, key, thumbnail=make_jpeg(index)))
    return found


def make_many_rows(count: int, seed: int = 0, distinct: int = 140) -> Iterable[Row]:
    """So many rows, made of fewer."""
    base, draw = make_rows(distinct, seed), np.random.default_rng(seed)
    for index in range(count):
        one, key = dict(base[index % distinct]), f"folder/picture-{index:05d}.jpg"
        if one["status"] == "done":
            one["score_full"] = one["score_full"] + float(draw.normal())
            one["target"] = int(draw.integers(1000))
            one["target_name"] = f"class {one['target']}"
        yield {**one, "key": key, "content_hash": f"hash of {key}"}


def make_jpeg(seed: int, side: int = 24) -> bytes:
    """A small picture."""
    draw, buffer = np.random.default_rng(seed), io.BytesIO()
    small = Image.fromarray(draw.integers(0, 256, (4, 4, 3)).astype(np.uint8))
    small.resize((side, side)).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def make_settings(areas: Sequence[float] = synthetic.AREAS, **explain: Any) -> dict[str, Any]:
    """The settings of a run, as `extremal run` has them."""
    shared = run_settings(make_explanation(areas=tuple(areas)))
    rest = {"areas": list(areas), "target": "", "ask": "", "alternatives": 1, "refine": False, "batch": ROWS_PER_UNIT}
    return {"explain": {**shared, **explain}, **rest}


def write_run(folder: Path, rows: Iterable[Row], told: dict[str, Any] | None = None, planned: int | None = None) -> Path:
    """The folder of a run with these rows."""
    rows = list(rows)
    keys = [one["key"] for one in rows if not one["alternative"]]
    keys += [f"missing-{index}" for index in range((planned or len(keys)) - len(keys))]
    plan = [{"unit": "", "key": key, "path": f"/{key}", "target": ""} for key in keys]
    with open_store(folder, told or make_settings(), SCHEMA) as store:
        store.write_table(PLAN_FILE, pa.Table.from_pylist(plan, PLANNED))
        for number, start in enumerate(range(0, len(rows), ROWS_PER_UNIT)):
            store.write(f"{number:08d}", rows[start : start + ROWS_PER_UNIT])
    return folder
