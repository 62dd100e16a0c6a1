"""Runs over data sets, made without a network, for tests that only read them."""

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
from extremal.jobs.rows import SCHEMA, build_failed_row, build_row
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


def run_settings(explanation: Explanation) -> dict[str, Any]:
    """Return the settings of an explanation that a run of one like it has in its manifest."""
    own = ("evaluations", "mirror", "stack")  # of each row
    return {name: value for name, value in explanation.settings.items() if name not in own}


def make_explanation(
    seed: int = 0,
    *,
    areas: tuple[float, ...] = synthetic.AREAS,
    shape: tuple[int, ...] = SHAPE,
    effect_factor: float = 1.0,
    control_factor: float = 1.0,
    unseen_factor: float = 1.0,
    target: int = 0,
    similar_to: Explanation | None = None,
    **changes: Any,
) -> Explanation:
    """Make the explanation of one input, with masks rebuilt from its parameters.

    Args:
        effect_factor: factor of the effects; larger areas are needed if it is small.
        control_factor: factor of the effects of random masks.
        unseen_factor: factor of the effects under unseen perturbations.
        target: index in `CLASSES`.
        similar_to: an explanation with similar masks.
    """
    generator = torch.Generator().manual_seed(seed)
    domain = Domain(shape)
    lattice = domain.exact_area_family(torch.empty(0)).parameter_shape
    parameters = torch.randn(1, len(areas), 1, *lattice, generator=generator)
    if similar_to is not None and similar_to.fields is not None:
        parameters = similar_to.fields + 0.3 * parameters
    base = synthetic.explanation(areas, shape, seed=seed)
    masks = rebuild_masks(SOLVER.settings(), parameters, areas, domain)
    more = {"spacing": [], "dtype": "torch.float32", "mirror": False, "solver": SOLVER.settings()}
    return replace(
        base,
        fields=parameters,
        masks=masks,
        mask_areas=masks.flatten(2).mean(2),
        scores=base.scores * effect_factor,
        binary_scores=base.binary_scores * effect_factor,
        unseen_scores=base.unseen_scores * effect_factor * unseen_factor,
        control_scores=base.control_scores * control_factor,
        target=(target,),
        target_names=(CLASSES[target],),
        settings={**base.settings, **more, "seed": 0},
        **changes,
    )


def make_row(explanation: Explanation, key: str, **changes: Any) -> Row:
    """Return the row of an explanation."""
    thumbnail = changes.pop("thumbnail", make_jpeg(0))
    row = build_row(explanation, 0, key=key, path=f"/{key}", digest=f"hash of {key}", seconds=0.5, thumbnail=thumbnail)
    return {**row, **changes}


def make_rows(count: int, seed: int = 0) -> list[Row]:
    """Make rows of all verdicts, sufficient ones at every area; every seventh has failed."""
    draw, rows = np.random.default_rng(seed), []
    for index in range(count):
        key = f"picture-{index:05d}.jpg"
        if index % 7 == 6:
            rows.append(build_failed_row(key, f"/{key}", None, f"an image must be readable, error {index % 2}", 0.1))
            continue
        effect_factor, control_factor = draw.uniform(0.7, 2.5), 4.0 if index % 5 == 4 else 1.0
        noisy = synthetic.stability(shape=SHAPE, iou=0.4 if index % 12 == 3 else 0.8)
        explanation = make_explanation(
            seed + index,
            stability=noisy,
            effect_factor=effect_factor,
            control_factor=control_factor,
            unseen_factor=0.2 if index % 5 == 2 else 1.0,
            target=int(draw.integers(len(CLASSES))),
        )
        rows.append(make_row(explanation, key, thumbnail=make_jpeg(index)))
    return rows


def make_table(rows: Sequence[Row]) -> pa.Table:
    """The table of rows."""
    return pa.Table.from_pylist(list(rows), SCHEMA)


def make_many_rows(count: int, seed: int = 0, distinct: int = 140) -> Iterable[Row]:
    """Yield many rows, made of a few distinct ones."""
    base, draw = make_rows(distinct, seed), np.random.default_rng(seed)
    for index in range(count):
        row, key = dict(base[index % distinct]), f"folder/picture-{index:05d}.jpg"
        if row["status"] == "done":
            row["score_full"] = row["score_full"] + float(draw.normal())
            row["target"] = int(draw.integers(1000))
            row["target_name"] = f"class {row['target']}"
        yield {**row, "key": key, "content_hash": f"hash of {key}"}


def make_jpeg(seed: int, side: int = 24) -> bytes:
    """Make a small JPEG."""
    draw, buffer = np.random.default_rng(seed), io.BytesIO()
    small = Image.fromarray(draw.integers(0, 256, (4, 4, 3)).astype(np.uint8))
    small.resize((side, side)).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def make_settings(areas: Sequence[float] = synthetic.AREAS, **explain: Any) -> dict[str, Any]:
    """Make the settings of a run, as `extremal run` stores them."""
    shared = run_settings(make_explanation(areas=tuple(areas)))
    rest = {"areas": list(areas), "target": "", "ask": "", "alternatives": 1, "refine": False, "batch": ROWS_PER_UNIT}
    return {"explain": {**shared, **explain}, **rest}


def write_run(
    folder: Path, rows: Iterable[Row], settings: dict[str, Any] | None = None, planned: int | None = None
) -> Path:
    """Write the folder of a run with these rows."""
    rows = list(rows)
    keys = [row["key"] for row in rows if not row["alternative"]]
    keys += [f"missing-{index}" for index in range((planned or len(keys)) - len(keys))]
    units = {row["key"]: f"{number // ROWS_PER_UNIT:08d}" for number, row in enumerate(rows)}
    plan = [
        {"unit": units.get(key, "99999999"), "key": key, "path": f"/{key}", "target": "", "problem": ""} for key in keys
    ]
    with open_store(folder, settings or make_settings(), SCHEMA) as store:
        store.write_table(PLAN_FILE, pa.Table.from_pylist(plan, PLANNED))
        for number, start in enumerate(range(0, len(rows), ROWS_PER_UNIT)):
            store.write(f"{number:08d}", rows[start : start + ROWS_PER_UNIT])
    return folder
