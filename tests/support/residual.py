"""A small residual network whose every step the tests of attribution methods write out."""

from torch import Tensor, nn

CLASSES = 4


class Residual(nn.Module):
    """h = relu(a(x)); y = relu(b(h) + h); the classes are linear in y's means. One rectifier, in place, used twice."""

    def __init__(self, rectifier: nn.Module | None = None) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 3, padding=1)
        self.rectifier = nn.ReLU(inplace=True) if rectifier is None else rectifier
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classes = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.rectifier(self.a(x))
        y = self.b(h)
        y += h
        return self.classes(self.pool(self.rectifier(y)).flatten(1))


class ResidualWithProbe(nn.Module):
    """The residual network with a module after its first rectifier."""

    def __init__(self, model: Residual) -> None:
        super().__init__()
        self.model, self.first = model, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(self.model.rectifier(self.model.a(x)))
        y = self.model.rectifier(self.model.b(h) + h)
        return self.model.classes(self.model.pool(y).flatten(1))


class ResidualWithLastMaps(nn.Module):
    """The residual network with its last maps as the output of a module."""

    def __init__(self, model: Residual) -> None:
        super().__init__()
        self.model, self.rectifier_out = model, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.model.a(x).relu()
        y = self.rectifier_out((self.model.b(h) + h).relu())
        return self.model.classes(y.mean((2, 3)))
