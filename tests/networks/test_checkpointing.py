"""Gradient checkpointing: the same outputs and gradients for less memory, where a row would not fit otherwise."""

import pytest
import torch

from extremal import Network, zoo
from extremal.networks.checkpointing import checkpointed, find_checkpoint_layers
from extremal.networks.inputs import prepare
from extremal.networks.memory import activation_bytes
from extremal.scores import Answer
from support.families import noise_image
from support.vlm_toys import ANSWER, PROMPT, build_family

pytestmark = pytest.mark.usefixtures("one_thread")


def measure(net: Network) -> tuple[float, torch.Tensor, int]:
    """Return the score of an answer, its gradient, and the bytes that are kept for this."""
    x = prepare(net, noise_image()).requires_grad_()
    with net.frozen() as run:
        ask = Answer(ANSWER, PROMPT).bind(run, x.detach())
        index = torch.tensor([0])
        score = ask(x, index)
        (slope,) = torch.autograd.grad(score.sum(), x)
        kept = activation_bytes(lambda: ask(x, index), [*net.model.parameters(), *net.model.buffers()])
    return float(score.detach()), slope, kept


@pytest.mark.parametrize("family", ["LLaVA", "Qwen2.5-VL"])
def test_output_and_gradient_are_the_same_for_less_memory(family: str) -> None:
    net = zoo.wrap_vision_language(*build_family(family))
    assert len(find_checkpoint_layers(net.model)) == 4  # two of the picture, two of the text
    score, slope, kept = measure(net)
    with checkpointed(net.model):
        again = measure(net)
    assert again[0] == pytest.approx(score, abs=1e-6)
    torch.testing.assert_close(again[1], slope, atol=1e-7, rtol=1e-4)
    assert again[2] < 0.7 * kept
    assert not any("forward" in vars(module) for module in net.model.modules())


def test_a_run_uses_it_where_a_row_does_not_fit_into_its_memory() -> None:
    net = zoo.wrap_vision_language(*build_family("LLaVA"))
    x = prepare(net, noise_image())
    layer = find_checkpoint_layers(net.model)[0]
    for memory, used in ((1.0, False), (1e-6, True)):
        net.memory = memory
        with net.frozen() as run:
            rows = run.max_batch_size(x)
            assert ("forward" in vars(layer), rows == 1) == (used, used)
        assert "forward" not in vars(layer)
