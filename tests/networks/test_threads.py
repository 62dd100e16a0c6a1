"""Threads that share a network take turns: each result is that of a run alone, and the network's state is exact."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal.captum import ExtremalPerturbation
from extremal.errors import ExtremalValueError
from extremal.explanations.channels.explain import explain_channels
from extremal.explanations.explain import explain
from extremal.explanations.explain_copies import stability
from extremal.explanations.judge import judge
from extremal.explanations.preflight.doctor import examine
from extremal.explanations.preflight.plan import plan
from extremal.explanations.reduce_region import minimal
from extremal.explanations.smallest_area import smallest_area
from extremal.masking.solvers import Path
from extremal.networks.layers import layers
from extremal.networks.network import Network
from extremal.networks.turns import exclusive
from support.toys import Switchable

N_THREADS = 4
SHORT = Path(steps=3, polish=2, draws=1)
IMAGES = torch.rand(N_THREADS, 1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
MASK = torch.rand(1, 1, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(training: bool) -> Switchable:
    torch.manual_seed(0)
    model = Switchable().train(training)
    model.first.bias.requires_grad_(False)
    return model


def state(model: nn.Module) -> dict[str, object]:
    return {
        "training": [module.training for module in model.modules()],
        "needed": [parameter.requires_grad for parameter in model.parameters()],
        "values": [tensor.numpy().tobytes() for tensor in model.state_dict().values()],
        "identity": [id(tensor) for tensor in (*model.parameters(), *model.buffers())],
        "hooks": [[*m._forward_hooks, *m._forward_pre_hooks, *vars(m).get("forward", ())] for m in model.modules()],
        "random": torch.get_rng_state().tolist(),
    }


def masks_of(model: object, image: Tensor) -> Tensor:
    return explain(model, image, 1, areas=(0.3,), perturbation="fade", solver=SHORT).masks  # type: ignore[arg-type]


def run_in_threads(tasks: list[Callable[[], Any]]) -> list[Any]:
    """Run tasks at once, one in each thread; the first error is raised."""
    start = threading.Barrier(len(tasks))

    def run(task: Callable[[], Any]) -> Any:
        start.wait(60)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result(300) for future in [pool.submit(run, task) for task in tasks]]


def compare_rounds(training: bool, rounds: int) -> tuple[int, int]:
    """Return how many results differ from those alone, and how many networks are left changed."""
    n_wrong = n_changed = 0
    expected = [masks_of(build(training), image) for image in IMAGES]
    for _ in range(rounds):
        model = build(training)
        before = state(model)
        found = run_in_threads([partial(masks_of, model, image) for image in IMAGES])
        n_wrong += sum(not torch.equal(*pair) for pair in zip(found, expected, strict=True))
        n_changed += state(model) != before
    return n_wrong, n_changed


@pytest.mark.parametrize("training", [True, False])
def test_four_threads_on_one_network(training: bool) -> None:
    assert compare_rounds(training, rounds=4) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_four_threads_on_one_network_in_many_rounds(training: bool) -> None:
    assert compare_rounds(training, rounds=50) == (0, 0)


RESULT = explain(build(False), IMAGES[0], 1, areas=(0.3,), perturbation="fade", solver=SHORT)
ENTRANCES: dict[str, Callable[[nn.Module], object]] = {
    "judge": lambda model: judge(model, IMAGES[1], MASK, 1, areas=(0.3,), perturbation="fade").scores.tolist(),
    "channels": lambda model: explain_channels(model, IMAGES[1], "first", 1, counts=(2,), solver=SHORT).masks.tolist(),
    "smallest area": lambda model: smallest_area(model, RESULT)[0] is None,
    "minimal": lambda model: minimal(model, RESULT, budget=30)[0] is None,
    "stability": lambda model: stability(model, IMAGES[0], RESULT, copies=2).ious.tolist(),
    "doctor": lambda model: examine(model, IMAGES[1], 1).findings,
    "plan": lambda model: plan(model, IMAGES[1], 1, areas=(0.3,)).inputs,
    "layers": lambda model: layers(model, IMAGES[1]),
    "captum": lambda model: ExtremalPerturbation(model).attribute(IMAGES[1], 1, areas=(0.3,), solver=SHORT).tolist(),
    "the weights": lambda model: Network(model).weight_hash(),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_entrance_takes_its_turn(entrance: str) -> None:
    """It runs while another thread explains the same network in training mode."""
    expected = ENTRANCES[entrance](build(True)), masks_of(build(True), IMAGES[0])
    model = build(True)
    before = state(model)
    tasks = [lambda: ENTRANCES[entrance](model), lambda: masks_of(model, IMAGES[0])]
    found = run_in_threads(tasks + tasks)
    assert state(model) == before
    assert found[0] == found[2] == expected[0]
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[3], expected[1])


def test_networks_with_a_common_part() -> None:
    backbone = build(True)
    wrapped = nn.Sequential(backbone, nn.Identity())
    before = state(backbone)
    expected = masks_of(build(True), IMAGES[0])
    networks: list[object] = [backbone, wrapped, lambda x: backbone(x) + 0, Network(wrapped)]
    found = run_in_threads([lambda network=network: masks_of(network, IMAGES[0]) for network in networks])  # type: ignore[misc]
    assert all(torch.equal(masks, expected) for masks in found)
    assert state(backbone) == before


def test_the_random_state_after_threads_with_networks_of_their_own() -> None:
    models = [Switchable() for _ in IMAGES]
    before = torch.get_rng_state()
    run_in_threads([partial(masks_of, model, image) for model, image in zip(models, IMAGES, strict=True)])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_is_explained_inside_its_own_callback() -> None:
    model, inner = build(True), list[Tensor]()
    before = state(model)

    def explain_again(step: object) -> None:
        if not inner:
            inner.append(masks_of(model, IMAGES[1]))

    explain(model, IMAGES[0], 1, areas=(0.3,), perturbation="fade", solver=SHORT, on_step=explain_again)
    assert torch.equal(inner[0], masks_of(build(True), IMAGES[1]))
    assert state(model) == before


def test_threads_that_would_wait_for_each_other_are_told() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    both = threading.Barrier(2)

    def hold(own: nn.Module, other: nn.Module) -> str:
        with exclusive(own, "own"):
            both.wait(60)
            try:
                with exclusive(other, "other"):
                    return ""
            except ExtremalValueError as error:
                return str(error)

    told = run_in_threads([lambda: hold(first, second), lambda: hold(second, first)])
    assert sorted(told) == [
        "",
        "a network must not wait for itself, got other explained inside a callback while another thread, whose network "
        "is in use here, uses it; explain one network at a time in each thread",
    ]


def test_a_turn_inside_a_turn_keeps_all_parts() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    events = list[str]()
    is_taken = threading.Event()

    def take() -> None:
        is_taken.wait(30)
        with exclusive(nn.Sequential(model[1])):
            events.append("other")

    other = threading.Thread(target=take)
    other.start()
    with exclusive(model):
        with exclusive(model), exclusive(model[1]):
            pass
        is_taken.set()
        time.sleep(0.2)  # the other thread asks
        events.append("first")
    other.join(30)
    assert events == ["first", "other"]


def test_a_turn_ends_after_an_error() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(KeyboardInterrupt), exclusive(model):
        raise KeyboardInterrupt

    def take() -> bool:
        with exclusive(model):
            return True

    assert run_in_threads([take]) == [True]
