"""Models of transformers as modules that take pixels and return what is scored."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from extremal.networks.text_encoder import TextEncoder

ForwardFn = Callable[..., Any]  # model, pixels (B, C, H, W), further inputs by name -> output


class TransformersAdapter(nn.Module):
    """A model of transformers that takes pixels and returns one tensor, or the parts of its output that are read.

    Args:
        model: the model.
        forward: evaluates it on pixels.
        texts: its text part, if it compares images with texts.
        tokenizer: of the phrases that name its classes; None if it takes none.
    """

    def __init__(
        self, model: nn.Module, forward: ForwardFn, texts: TextEncoder | None = None, tokenizer: Any | None = None
    ) -> None:
        super().__init__()
        self.model, self._forward, self.texts, self.tokenizer = model, forward, texts, tokenizer
        self._returns_all = False

    def forward(self, pixel_values: Tensor, **prompt: Tensor) -> Any:
        """(B, C, H, W), and further inputs by name -> (B, K) or (B, K, H, W), or parts of the output by name.

        All parts inside `whole_output`.
        """
        return (_all_parts if self._returns_all else self._forward)(self.model, pixel_values, **prompt)

    @contextmanager
    def whole_output(self) -> Iterator[None]:
        """Return all parts of the model's output inside the `with`."""
        before, self._returns_all = self._returns_all, True
        try:
            yield
        finally:
            self._returns_all = before


def _all_parts(model: Any, pixels: Tensor) -> dict[str, Tensor]:
    if hasattr(model, "get_image_features"):
        output = model.get_image_features(pixel_values=pixels)
        output = {"image_embeds": output} if isinstance(output, Tensor) else output  # a tensor before transformers 5
    else:
        output = model(pixel_values=pixels, return_dict=True)
    return {key: part for key, part in output.items() if isinstance(part, Tensor)}
