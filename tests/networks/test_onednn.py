"""Convolutions with a rectifier in one call: the plain layers' output and gradient, whoever else uses them."""

from collections.abc import Callable

import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from extremal.networks.acceleration.onednn import Convolution, is_available

pytestmark = pytest.mark.skipif(not is_available(), reason="no oneDNN in this build of PyTorch")

BOUNDS = -0.3, 0.4


def rows(count: int = 3, channels: int = 6, height: int = 12, width: int = 12) -> Tensor:
    """Random inputs, with the channels last."""
    x = torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(1))
    return x.to(memory_format=torch.channels_last)


def layer(kind: type[nn.Conv2d] = nn.Conv2d, *shape: int, **options: object) -> nn.Conv2d:
    """A convolution of six channels with random weights."""
    torch.manual_seed(0)
    return kind(6, *(shape or (6, 3)), **options).requires_grad_(False)


def gradient(convolve: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and gradient of a sum that weighs places differently."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    output = convolve(x)
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    return output.detach(), torch.autograd.grad((output * weights).sum(), x)[0]


def assert_alike(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    for new, old in zip(found, wanted, strict=True):
        torch.testing.assert_close(new, old, atol=1e-5 * float(old.abs().max()), rtol=0)


SHAPES = {
    "1x1": layer(nn.Conv2d, 8, 1),
    "1x1 without bias": layer(nn.Conv2d, 8, 1, bias=False),
    "strided 1x1": layer(nn.Conv2d, 8, 1, stride=2),
    "3x3": layer(padding=1),
    "oblong": layer(nn.Conv2d, 8, (1, 3), stride=(1, 2), padding=(0, 1)),
    "dilated": layer(padding=2, dilation=2),
    "grouped": layer(groups=2, padding=1),
    "depthwise": layer(groups=6, padding=1),
    "same": layer(Conv2dSame, stride=2),
    "same depthwise": layer(Conv2dSame, stride=2, groups=6),
    "same depthwise 5x5": layer(Conv2dSame, 6, 5, stride=2, groups=6),
    "same depthwise oblong": layer(Conv2dSame, 12, (5, 2), stride=(2, 3), groups=6),
    "same dilated depthwise": layer(Conv2dSame, stride=2, groups=6, dilation=2),
    "same grouped": layer(Conv2dSame, stride=2, groups=3),
}


@pytest.mark.parametrize("bounds", [None, BOUNDS], ids=["free", "bound"])
@pytest.mark.parametrize("size", [(12, 12), (13, 9)], ids=["even", "odd"])
@pytest.mark.parametrize("name", SHAPES)
def test_it_is_the_layer_and_its_rectifier(
    name: str, size: tuple[int, int], bounds: tuple[float, float] | None
) -> None:
    module, x = SHAPES[name], rows(3, 6, *size)
    convolve = Convolution(module, bounds)
    rectify = nn.Identity() if bounds is None else nn.Hardtanh(*bounds)
    wanted = gradient(lambda x: rectify(module(x)), x)
    assert convolve.supports(x)
    assert_alike(gradient(convolve, x), wanted)
    with torch.no_grad():
        assert_alike((convolve(x),), wanted[:1])
    if bounds is not None:
        assert 0.1 < float((wanted[0] == bounds[0]).float().mean()) < 0.9


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("count", [2, 3, 4, 8, 15, 16])
def test_so_many_rows_on_one_thread(count: int) -> None:
    module, x = SHAPES["1x1"], rows(count)
    assert_alike(gradient(Convolution(module), x), gradient(module, x))


@pytest.mark.parametrize(
    ("x", "module"),
    [
        (rows(1), SHAPES["3x3"]),
        (rows(3, 6, 6, 6), SHAPES["3x3"]),
        (rows().contiguous(), SHAPES["3x3"]),
        (rows().double(), layer().double()),
        (rows().bfloat16(), layer().bfloat16()),
        (rows()[0], SHAPES["3x3"]),
        (rows().to("meta"), layer().to("meta")),
        (rows(), layer().requires_grad_()),
    ],
    ids=["one row", "few places", "channels first", "double", "half", "no rows", "elsewhere", "trained"],
)
def test_what_is_left_to_the_layer(x: Tensor, module: nn.Conv2d) -> None:
    assert not Convolution(module).supports(x)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_autocast_and_a_switched_off_library_are_left_to_the_layer() -> None:
    convolve, x = Convolution(SHAPES["3x3"]), rows()
    assert convolve.supports(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not convolve.supports(x)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not convolve.supports(x)


FIRST, SECOND = layer(nn.Conv2d, 6, 1), layer(padding=1)
USES = {
    "one after the other": lambda a, b, x: b(a(x)),
    "and once more": lambda a, b, x: b(a(x)) + b(2 * a(x)),
    "its output twice": lambda a, b, x: (y := a(x)) + b(y),
    "its output twice, the other way": lambda a, b, x: b(y := a(x)) * y,
    "both take it": lambda a, b, x: b(y := a(x)) - b(y),
    "changed between": lambda a, b, x: b(a(x).mul(2)),
    "a part of it": lambda a, b, x: b(a(x)[:, :, 1:]),
}


@pytest.mark.parametrize("observable", [False, True])
@pytest.mark.parametrize("use", USES)
def test_gradients_of_all_uses_are_summed(use: str, observable: bool) -> None:
    quick = [Convolution(module, BOUNDS, observable=observable) for module in (FIRST, SECOND)]
    rectify = nn.Hardtanh(*BOUNDS)
    plain = [lambda x, module=module: rectify(module(x)) for module in (FIRST, SECOND)]
    assert_alike(gradient(lambda x: USES[use](*quick, x), rows()), gradient(lambda x: USES[use](*plain, x), rows()))


def test_a_gradient_is_masked_where_it_lies_only_if_nobody_sees_it() -> None:
    taken: dict[bool, tuple[Tensor, Tensor]] = {}
    for observable in (False, True):
        x = rows().requires_grad_()
        first, second = (Convolution(module, BOUNDS, observable=observable) for module in (FIRST, SECOND))
        y = first(x)
        slopes: list[Tensor] = []
        y.register_hook(slopes.append)
        (within,) = torch.autograd.grad(second(y).square().sum(), x)
        taken[observable] = slopes[0], within
    bound = (y == BOUNDS[0]) | (y == BOUNDS[1])
    assert float(taken[False][0][bound].abs().max()) == 0  # in place: what the hook kept has changed
    assert float(taken[True][0][bound].abs().max()) > 0
    assert_alike(taken[False][1:], taken[True][1:])


def test_a_gradient_of_somebody_else_is_left_as_it_is() -> None:
    x, own = rows().requires_grad_(), torch.ones(3, 6, 12, 12)
    first, second = (Convolution(module, BOUNDS) for module in (FIRST, SECOND))
    y = first(x)
    y.register_hook(lambda _: own)
    torch.autograd.grad(second(y).sum(), x)
    assert bool((own == 1).all())


def test_gradients_of_gradients() -> None:
    x = rows().requires_grad_()
    found = []
    for first, second in (
        [Convolution(module, BOUNDS) for module in (FIRST, SECOND)],
        [nn.Sequential(module, nn.Hardtanh(*BOUNDS)) for module in (FIRST, SECOND)],
    ):
        (slope,) = torch.autograd.grad(second(first(x)).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), x)[0])
    assert_alike(found[:1], found[1:])
