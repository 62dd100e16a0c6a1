"""The wrapper: what `frozen` restores, which outputs are scores, and the errors for others."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations.explain import explain
from extremal.masking.solvers import Path
from extremal.networks.network import Network
from extremal.networks.outputs import read_logits
from support.toys import Switchable

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def disordered() -> Switchable:
    """A network in a state that no default would restore."""
    model = Switchable()
    model.train()
    model.norm.eval()  # some of its modules train, some do not
    model.first.bias.requires_grad_(False)
    model.last.weight.grad = torch.ones_like(model.last.weight)
    return model


def state(model: nn.Module) -> dict[str, object]:
    """Everything of a module that a run could disturb."""
    return {
        "training": {name: module.training for name, module in model.named_modules()},
        "needed": {name: p.requires_grad for name, p in model.named_parameters()},
        "grad": {name: None if p.grad is None else p.grad.tolist() for name, p in model.named_parameters()},
        "values": {name: t.numpy().tobytes() for name, t in model.state_dict().items()},
        "identity": [id(t) for t in (*model.parameters(), *model.buffers())],
        "hooks": [
            list(m._forward_hooks) + list(m._forward_pre_hooks) + list(m._backward_hooks) for m in model.modules()
        ],
    }


def randomness() -> tuple[object, ...]:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, keys.tolist(), rest, torch.random.get_rng_state().tolist()


def disturb(model: nn.Module) -> None:
    """What a run and its network may do inside the `with`."""
    random.random(), np.random.rand(), torch.rand(3)
    model.train()
    model(X)  # moves the batch statistics and the counter
    model.requires_grad_(True)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    before = state(model), randomness()
    yield
    assert state(model) == before[0]
    assert randomness() == before[1]


def test_everything_is_restored_after_success() -> None:
    model = disordered()
    with unchanged(model), Network(model).frozen() as run:
        run(X)
        disturb(model)


def test_a_single_row_has_the_strides_of_its_layout() -> None:
    """Kernels read the layout from the strides, also from that of a batch of one, where they are arbitrary."""
    recorded: list[tuple[int, ...]] = []

    class Watching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            recorded.append(x.stride())
            return x.mean((2, 3))

    with Network(Watching()).frozen() as run:
        for rows in (1, 2):
            run(torch.rand(1, rows, 5, 7, 3).movedim(-1, 2).flatten(0, 1))
            run(torch.rand(rows, 3, 5, 7))
    assert recorded == [(105, 1, 21, 3)] * 4


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit, MemoryError])
def test_everything_is_restored_after_an_exception(error: type[BaseException]) -> None:
    model = disordered()

    def fail() -> None:
        with Network(model).frozen():
            disturb(model)
            raise error

    with unchanged(model), pytest.raises(error):
        fail()


def test_inside_nothing_trains_and_no_parameter_needs_a_gradient() -> None:
    model = disordered()
    with torch.no_grad(), Network(model).frozen():
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert torch.is_grad_enabled()


def test_explain_restores_a_network() -> None:
    model, recorded = disordered(), []
    handle = model.last.register_forward_hook(lambda *_: recorded.append(1))
    x = X.clone()
    with unchanged(model):
        explain(model, x, 1, areas=(0.3,), perturbation="fade", solver=Path(steps=2, polish=1, draws=1))
    assert recorded, "the caller's hooks run as ever"
    handle.remove()
    assert torch.equal(x, X)
    assert x.grad is None


def test_an_interrupted_run_restores_a_network() -> None:
    model = disordered()

    def interrupt(step: object) -> None:
        disturb(model)
        raise KeyboardInterrupt

    with unchanged(model), pytest.raises(KeyboardInterrupt):
        explain(model, X, 1, areas=(0.3,), perturbation="fade", on_step=interrupt)


def test_the_seed_sets_the_networks_own_randomness() -> None:
    class Dice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.rand(len(x), 2)

    net = Network(Dice())
    draws = []
    for seed in (0, 0, 1):
        with net.frozen(seed) as run:
            draws.append(run(X).tolist())
    assert draws[0] == draws[1] != draws[2]


def test_explain_works_in_a_callers_inference_mode() -> None:
    model = Switchable().eval()
    solver = Path(steps=3, polish=2, draws=2)
    outside = explain(model, X, 1, areas=(0.3,), perturbation="fade", solver=solver)
    with torch.inference_mode():
        made_here = X.clone()
        inside = explain(model, made_here, 1, areas=(0.3,), perturbation="fade", solver=solver)
        assert torch.is_inference_mode_enabled()
    assert torch.equal(inside.masks, outside.masks)
    with torch.no_grad():
        assert torch.equal(explain(model, X, 1, areas=(0.3,), perturbation="fade", solver=solver).masks, outside.masks)


def test_a_run_counts_rows() -> None:
    net = Network(Switchable())
    with net.frozen() as run:
        run(X)
        run(X.clone().requires_grad_())
        run.evaluate(X[:1].clone().requires_grad_())
        run.evaluate(X[:1])
    assert (run.forwards, run.gradients) == (3, 3)


ROWS = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    "output", [ROWS, {"logits": ROWS}, {"loss": None, "logits": ROWS}, SimpleNamespace(logits=ROWS, hidden=None)]
)
def test_logits_of_every_kind_of_output(output: object) -> None:
    assert torch.equal(read_logits(output, "toy"), ROWS)


def test_logits_are_a_mean_over_positions() -> None:
    maps = torch.arange(24.0).view(2, 3, 2, 2)
    assert torch.equal(read_logits(maps, "toy"), maps.mean((2, 3)))
    assert torch.equal(read_logits(maps.flatten(2), "toy", ("cat", "dog", "bird")), maps.mean((2, 3)))


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        (
            {"boxes": ROWS, "labels": ROWS},
            ExtremalTypeError,
            "a network must return a tensor (B, classes) or an output with logits, toy returned a dict with keys "
            "boxes, labels; pass a callable on the output as target, or wrap the network",
        ),
        (
            (ROWS, ROWS),
            ExtremalTypeError,
            "a network must return a tensor (B, classes) or an output with logits, toy returned a tuple; "
            "pass a callable on the output as target, or wrap the network",
        ),
        (ROWS.long(), ExtremalTypeError, "a network must return floating scores, toy returned torch.int64"),
        (
            ROWS[0],
            ExtremalValueError,
            "a network must return (B, classes), toy returned shape (2,); wrap it, e.g. to [:, None]",
        ),
    ],
)
def test_other_outputs_raise_an_error(output: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as result:
        read_logits(output, "toy")
    assert str(result.value) == message


def test_only_modules_and_functions_are_networks() -> None:
    with pytest.raises(ExtremalTypeError) as error:
        Network(3)  # type: ignore[arg-type]
    assert str(error.value) == ("a network must be a torch.nn.Module or a function (B, C, *S) -> (B, classes), got int")
    with pytest.raises(ExtremalTypeError) as of_class:
        Network(Switchable)  # type: ignore[arg-type]
    assert str(of_class.value) == "a network must be an object, got the class Switchable; pass Switchable()"


def test_class_names() -> None:
    net = Network(nn.Identity(), labels=("tabby, tabby cat", "tiger cat", "espresso"), name="toy")
    assert [net.index(name) for name in ("tabby", "Tabby cat", " ESPRESSO ", "tabby, tabby cat")] == [0, 0, 2, 0]
    assert (net.label(1), net.label(7)) == ("tiger cat", "class 7")
    with pytest.raises(ExtremalValueError) as error:
        net.index("expresso")
    assert str(error.value) == "target must be a class of toy, got 'expresso'; nearest: espresso"
    with pytest.raises(ExtremalValueError) as unnamed:
        Network(nn.Identity()).index("cat")
    assert str(unnamed.value) == "Identity has no class names, got 'cat'; give the class as an index"


def test_a_repeated_class_name() -> None:
    net = Network(
        nn.Identity(), labels=("crane", "crane", "maillot, tank suit", "maillot", "seal, stamp", "seal, sea dog")
    )
    assert net.index("maillot") == 3  # the whole label, before a synonym
    with pytest.raises(ExtremalValueError) as twice:
        net.index("crane")
    assert str(twice.value) == (
        "target must name one class of Identity, got 'crane', which is 0 (crane), 1 (crane); give the class as an index"
    )
    with pytest.raises(ExtremalValueError, match=r"4 \(seal, stamp\), 5 \(seal, sea dog\)"):
        net.index("seal")


def test_weights_created_in_inference_mode_raise_an_error() -> None:
    with torch.inference_mode():
        model = nn.Linear(2, 2)
    with pytest.raises(ExtremalValueError) as error, Network(model).frozen():
        raise AssertionError("not reached")
    assert str(error.value) == (
        "a network must be built outside torch.inference_mode, Linear's weights were created inside it, "
        "which disables gradients; build or load it outside"
    )


def test_the_weight_hash_depends_on_every_value_and_buffer() -> None:
    model = Switchable()
    first = Network(model).weight_hash()
    assert Network(Switchable()).weight_hash() == first
    model.norm.running_mean[0] += 1e-6
    changed = Network(model).weight_hash()
    model.norm.running_mean[0] -= 1e-6
    model.last.bias.data[0] += 1e-6
    assert len({first, changed, Network(model).weight_hash()}) == 3


def test_the_weight_hash_of_one_value_does_not_depend_on_its_stride() -> None:
    model = Switchable()
    hashes = set()
    for stride in (0, 1, 5):
        model.register_buffer("scale", torch.as_strided(torch.ones(1), (1,), (stride,)))
        hashes.add(Network(model).weight_hash())
    assert len(hashes) == 1


@pytest.mark.parametrize("image", [np.zeros((8, 8, 3), np.uint8), "cat.png", X[0], None])
def test_only_pillow_images_are_prepared(image: object) -> None:
    network = Network(nn.Identity(), lambda image: torch.zeros(3, 8, 8))
    with pytest.raises(ExtremalTypeError, match=r"prepare takes one Pillow image, got \w+; convert an array with Im"):
        network.prepare(image)  # type: ignore[arg-type]


def test_a_prepared_input_is_converted_back_to_its_image() -> None:
    pixels = torch.randint(0, 256, (1, 3, 5, 6), generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    x = (pixels / 255 - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    shown = Network(nn.Identity(), mean=mean.tolist(), std=std.tolist()).to_images(x)
    assert shown is not None
    assert torch.equal(shown.movedim(-1, 1), pixels.byte())
    assert Network(nn.Identity()).to_images(torch.zeros(1, 2, 5, 6)) is None
