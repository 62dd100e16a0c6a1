"""The steps of an image processor of transformers behind a mask: with a gradient, and compared with its own result."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.file_checks import describe_error

MAX_MEAN_DIFFERENCE = 2 / 255  # of pixel values in 0..1, by which the steps may differ from the processor on average
MAX_DIFFERENCE = 0.25  # the same for one value: the processor rounds to whole grey levels, and clips
STEP_NAMES = ("center_crop", "resize")  # methods of image processors that return a picture of another size
PIXELS = "pixel_values"
NEARLY_ZERO = 1e-6


class PictureSteps:
    """Turns a normalised picture into the pixel tensors of a model, as its image processor does, with a gradient.

    The processor's own steps (resizing, tiling, rescaling, normalising, patching) run on floating-point pixels; those
    of transformers are functions of tensors. Nothing here depends on the family of a model.

    Args:
        image_processor: of transformers; it must be this object's own.
        options: that the processor of text and images passes to it.
        name: of the network, for messages.
    """

    def __init__(self, image_processor: Any, options: Mapping[str, Any], name: str) -> None:
        self._image_processor, self._name = image_processor, name
        self._options = {key: value for key, value in options.items() if key != "return_tensors"}
        self.mean: tuple[float, ...] = (0.0,)
        self.std: tuple[float, ...] = (1.0,)
        if options.get("do_normalize", getattr(image_processor, "do_normalize", False)):
            self.mean = tuple(map(float, options.get("image_mean") or image_processor.image_mean))
            self.std = tuple(map(float, options.get("image_std") or image_processor.image_std))

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """Return the floating-point tensors for pictures x (B, 3, H, W), joined on axis 0, where the rows are."""
        mean, std = (x.new_tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (self.mean, self.std))
        pixels = (x.float() * std + mean) * 255
        rows = [self._process(row) for row in pixels]
        return {
            key: _without_zeros(torch.cat([row[key] for row in rows])).to(x.dtype)
            for key, value in rows[0].items()
            if isinstance(value, Tensor) and value.is_floating_point()
        }

    def prepare(self, image: Image.Image) -> Tensor:
        """Return the picture that masks act on, (3, H, W): the smallest from which the processor's result follows.

        It is the picture after the processor's crop or its first resizing, or the whole image.

        Raises:
            ExtremalValueError: the steps do not give the processor's result from any of these.
        """
        with self._recorded_steps() as pictures:
            expected = self._process(image)[PIXELS]
        closest = (torch.inf, torch.inf)
        for picture in [*pictures, torch.from_numpy(np.array(image)).movedim(-1, 0)]:
            x = self._normalise(picture.float() / 255)
            difference = self._compare(x, expected)
            if difference is not None:
                if _is_close(*difference):
                    return x
                closest = min(closest, difference)
        raise self._difference_error(closest)

    def check(self, x: Tensor) -> None:
        """Compare the steps for pictures x (N, 3, H, W) with the processor's result for the same as whole grey levels.

        Raises:
            ExtremalValueError: they differ by more than rounding, or pass no gradient.
        """
        self.check_shape(x)
        mean, std = (x.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        for row in x.detach():
            levels = ((row * std + mean) * 255).round().clamp(0, 255)
            image = Image.fromarray(levels.byte().movedim(0, -1).cpu().numpy())
            difference = self._compare(self._normalise(levels.cpu().float() / 255), self._process(image)[PIXELS])
            if difference is None or not _is_close(*difference):
                raise self._difference_error(difference)
        with torch.enable_grad():
            leaf = x[:1].detach().clone().requires_grad_()
            if not self(leaf)[PIXELS].requires_grad:
                raise ExtremalValueError(
                    f"a mask must act behind the image processor's steps, those of {self._name} pass no gradient; save "
                    "the folder with the image processor of torchvision (use_fast)"
                )

    def check_shape(self, x: Tensor) -> None:
        """Raise unless x are pictures (N, 3, H, W)."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise ExtremalValueError(
                f"a model of images and text must get pictures (N, 3, H, W), {self._name} got {tuple(x.shape)}; pass "
                "an image, or prepare it with network.prepare(image)"
            )

    def _normalise(self, pixels: Tensor) -> Tensor:
        mean, std = (pixels.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def _process(self, picture: Any) -> Mapping[str, Any]:
        """Return the processor's result for one picture: a Pillow image, or a tensor (3, H, W) of 0 .. 255."""
        try:
            result: Mapping[str, Any] = self._image_processor(images=[picture], **self._options, return_tensors="pt")
            if not isinstance(result[PIXELS], Tensor):
                raise TypeError(f"{PIXELS} is a {type(result[PIXELS]).__name__}")
        except Exception as error:
            size = picture.shape[1:] if isinstance(picture, Tensor) else picture.size[::-1]
            raise ExtremalValueError(
                f"an image processor must take a picture of {size[0]} × {size[1]} px, that of {self._name} raised "
                f"{describe_error(error)}; pass an image of another size"
            ) from error
        return result

    def _compare(self, x: Tensor, expected: Tensor) -> tuple[float, float] | None:
        """Return the mean and the largest difference in pixel values of 0..1; None if the shapes differ."""
        with torch.no_grad():
            found = self(x[None])[PIXELS]
        if found.shape != expected.shape:
            return None
        difference = (found - expected).abs() * min(self.std)
        return float(difference.mean()), float(difference.max())

    def _difference_error(self, difference: tuple[float, float] | None) -> ExtremalValueError:
        known = difference is not None and difference[0] < torch.inf
        found = f"differ by {difference[0]:.2g} of white on average" if known and difference else "have other shapes"
        return ExtremalValueError(
            f"an image processor must resize so that a mask can follow, the pixels of {self._name} {found} when its "
            "steps run on a masked picture; pass the picture resized to the size that the model takes"
        )

    @contextmanager
    def _recorded_steps(self) -> Iterator[list[Tensor]]:
        """Collect the pictures (3, H, W) that the processor makes meanwhile: crops first, then in their order."""
        processor, own = self._image_processor, vars(self._image_processor)
        made: dict[str, list[Tensor]] = {name: [] for name in STEP_NAMES}
        pictures: list[Tensor] = []

        def record(name: str) -> Any:
            step = getattr(processor, name)

            def run(*args: Any, **options: Any) -> Any:
                result = step(*args, **options)
                if isinstance(result, Tensor) and result.numel() and result.shape[-3] == 3 and len(result) in (1, 3):
                    made[name].append(result.reshape(result.shape[-3:]).clone())
                return result

            return run

        names = [name for name in STEP_NAMES if callable(getattr(processor, name, None)) and name not in own]
        for name in names:
            own[name] = record(name)
        try:
            yield pictures
        finally:
            for name in names:
                del own[name]
        pictures += [*reversed(made["center_crop"]), *made["resize"][:1]]


def _without_zeros(pixels: Tensor) -> Tensor:
    """Return pixels with those of exactly 0 a little above: models drop tiles of zeros as padding (Idefics 3)."""
    return pixels + NEARLY_ZERO * (pixels == 0)


def _is_close(mean: float, largest: float) -> bool:
    return mean <= MAX_MEAN_DIFFERENCE and largest <= MAX_DIFFERENCE
