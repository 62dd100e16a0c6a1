"""Explanations made by hand."""

import torch
from torch import Tensor

from extremal.explanations.explanation import Explanation
from extremal.explanations.verdict import Status

AREAS = (0.25, 0.5)


# a row of masks (A, 1, 2, 4), no two values of a mask alike
MASKS = torch.tensor(
    [
        [[0.9, 0.1, 0.2, 0.3], [0.8, 0.0, 0.05, 0.15]],
        [[0.9, 0.7, 0.2, 0.3], [0.8, 0.6, 0.05, 0.15]],
    ]
)[:, None]


def explanation(*, keeps: bool = True, images: int = 1, **changes: object) -> Explanation:
    """The whole scores 10, nothing scores 2: an effect of 1 is 8 points."""

    def each(values: object) -> Tensor:
        rows = torch.as_tensor(values)
        return rows.expand(images, *rows.shape).clone()

    values = {
        "areas": AREAS,
        "masks": each(MASKS),
        "mask_areas": each(MASKS.flatten(1).mean(1)),
        "scores": each([6.0, 12.0]),
        "binary_scores": each([4.0, 9.6]),
        "unseen_scores": each([[3.0, 5.0, 4.0], [9.0, 10.0, 4.0]]),
        "unseen_blank": each([2.0, 0.0, 4.0]),
        "control_scores": each([[2.0, 3.2, 2.8], [3.6, 2.0, 1.2]]),
        "agreement": each([[[0.0, 1.0, 2.0, 3.0], [1.0, 0.0, 0.0, 1.0]]]),
        "score_full": each(10.0),
        "score_blank": each(2.0),
        "inputs": each(torch.rand(3, 2, 4)),
        "pictures": each(torch.full((2, 4, 3), 7, dtype=torch.uint8)),
        "destroyed": each(torch.full((2, 4, 3), 128, dtype=torch.uint8)),
        "trace_step": torch.tensor([0, 1]),
        "trace_area": each([0.5, 0.4]),
        "trace_reward": each([1.0, 2.0]),
        "trace_grey": each([0.1, 0.0]),
        "target": (3,) * images,
        "target_names": ("tabby, tabby cat",) * images,
        "unseen_names": ("fade", "constant", "noise"),
        "status": ((Status.CONVERGED, Status.STUCK),) * images,
        "keeps": keeps,
        "settings": {"seed": 0, "solver": {"name": "path", "betas": [0.9, 0.99]}},
    }
    return Explanation(**(values | changes))
