"""Convolutions with a rectifier in one call: the output and gradient of the plain layers, whatever else uses them."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from extremal.networks.acceleration.onednn import Convolution, is_available
from support.gradients import assert_equal_to_rounding, output_and_gradient

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
def test_it_equals_the_layer_and_its_rectifier(
    name: str, size: tuple[int, int], bounds: tuple[float, float] | None
) -> None:
    module, x = SHAPES[name], rows(3, 6, *size)
    convolve = Convolution(module, bounds)
    rectify = nn.Identity() if bounds is None else nn.Hardtanh(*bounds)
    expected = output_and_gradient(lambda x: rectify(module(x)), x)
    assert convolve.supports(x)
    assert_equal_to_rounding(output_and_gradient(convolve, x), expected)
    with torch.no_grad():
        assert_equal_to_rounding((convolve(x),), expected[:1])
    if bounds is not None:
        assert 0.1 < float((expected[0] == bounds[0]).float().mean()) < 0.9


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("count", [2, 3, 4, 8, 15, 16])
def test_numbers_of_rows_on_one_thread(count: int) -> None:
    module, x = SHAPES["1x1"], rows(count)
    assert_equal_to_rounding(output_and_gradient(Convolution(module), x), output_and_gradient(module, x))


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
def test_unsupported_inputs(x: Tensor, module: nn.Conv2d) -> None:
    assert not Convolution(module).supports(x)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_autocast_and_a_disabled_library_are_unsupported() -> None:
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
    assert_equal_to_rounding(
        output_and_gradient(lambda x: USES[use](*quick, x), rows()),
        output_and_gradient(lambda x: USES[use](*plain, x), rows()),
    )


def test_a_gradient_is_masked_in_place_only_if_unobservable() -> None:
    results: dict[bool, tuple[Tensor, Tensor]] = {}
    for observable in (False, True):
        x = rows().requires_grad_()
        first, second = (Convolution(module, BOUNDS, observable=observable) for module in (FIRST, SECOND))
        y = first(x)
        slopes: list[Tensor] = []
        y.register_hook(slopes.append)
        (within,) = torch.autograd.grad(second(y).square().sum(), x)
        results[observable] = slopes[0], within
    bound = (y == BOUNDS[0]) | (y == BOUNDS[1])
    assert float(results[False][0][bound].abs().max()) == 0  # in place: what the hook kept has changed
    assert float(results[True][0][bound].abs().max()) > 0
    assert_equal_to_rounding(results[False][1:], results[True][1:])


def test_a_gradient_of_other_code_is_unchanged() -> None:
    x, own = rows().requires_grad_(), torch.ones(3, 6, 12, 12)
    first, second = (Convolution(module, BOUNDS) for module in (FIRST, SECOND))
    y = first(x)
    y.register_hook(lambda _: own)
    torch.autograd.grad(second(y).sum(), x)
    assert bool((own == 1).all())


def test_gradients_of_gradients() -> None:
    x = rows().requires_grad_()
    result = []
    for first, second in (
        [Convolution(module, BOUNDS) for module in (FIRST, SECOND)],
        [nn.Sequential(module, nn.Hardtanh(*BOUNDS)) for module in (FIRST, SECOND)],
    ):
        (slope,) = torch.autograd.grad(second(first(x)).square().sum(), x, create_graph=True)
        result.append(torch.autograd.grad(slope.square().sum(), x)[0])
    assert_equal_to_rounding(result[:1], result[1:])
