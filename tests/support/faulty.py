"""A toy network with one fault, for the doctor's checks."""

from collections.abc import Callable

from torch import Tensor, nn

from support.toys import Boxes, texture

SIDE = 24
X = texture(1, 3, SIDE, SIDE)
BOX = (slice(4, 14), slice(6, 16))


class Faulty(nn.Module):
    """`Boxes` with a fault in a function of its input (`before`) or of its output (`after`)."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor, Tensor], Tensor] = lambda out, x: out,
        gain: float = 5.0,
    ) -> None:
        super().__init__()
        self.boxes = Boxes(X, [BOX], gain=gain)
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(self.boxes(x), x)
