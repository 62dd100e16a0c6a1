"""Chunks, blocks and budgets of memory: the numbers do not depend on them."""

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal import ExtremalValueError, explain, judge
from extremal.explanations.build_objective import build_objective
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.objective import Objective
from extremal.explanations.settings import Settings
from extremal.explanations.verdict import Status
from extremal.masking.area import cut
from extremal.masking.perturbations import Fade
from extremal.masking.solvers import Path, Step
from extremal.networks.memory import CPU_BUDGET, activation_bytes, default_budget, keep_freed_memory
from extremal.networks.network import Network
from extremal.networks.run import Run
from extremal.scores.target import Target, parse_target
from support.toys import BRITTLE_INPUTS, Brittle, dim

SHORT = Path(steps=8, polish=4, draws=2, search=4)
AREAS = (0.1, 0.3)
GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(5, 3, 16, 16, generator=GENERATOR, dtype=torch.float64)
MASKS = torch.rand(5, 4, 1, 16, 16, generator=GENERATOR, dtype=torch.float64)


def toy() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 5), nn.Softplus(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)
    return nn.Sequential(*layers).double()


class Watched(nn.Module):
    """Notes how many rows it is asked at once; runs out of memory above `most`."""

    def __init__(self, most: int = 10**9, error: type[Exception] = torch.OutOfMemoryError, text: str = "") -> None:
        super().__init__()
        self.inner, self.most, self.error, self.text = toy(), most, error, text
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        if len(x) > self.most:
            raise self.error(self.text)
        return self.inner(x)


def build(run: Run, target: Target, **options: Any) -> Objective:
    settings = Settings(**options)
    return build_objective(run, X, parse_target(target, settings.score), settings)


@pytest.mark.parametrize("game", ["preserve", "delete", "dual"])
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 20, 100])
def test_rewards_and_gradients_do_not_depend_on_the_chunks(rows: int, game: str) -> None:
    network = Network(Watched())
    with network.frozen() as run:
        objective = build(run, [0, 1, 2, 0, 1], game=game)
        network.model.rows.clear()
        weights = torch.rand(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        results = []
        for reward in (objective.reward, ChunkedReward(objective, rows)):
            masks = MASKS.clone().requires_grad_()
            paid = reward(masks, True)
            (slopes,) = torch.autograd.grad((paid * weights).sum(), masks)
            results.append((paid.detach(), slopes, reward(MASKS, False)))
        for whole, chunked in zip(*results, strict=True):
            torch.testing.assert_close(chunked, whole, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("game", ["preserve", "delete", "dual"])
def test_one_of_the_inputs_has_the_rewards_that_it_has_among_all(game: str) -> None:
    network = Network(toy())
    with network.frozen() as run:
        objective = build(run, [0, 2, 1, 0, 2], perturbation="fade", game=game)
        reward = ChunkedReward(objective, 3)
        together = reward(MASKS, False)
        for n in range(len(X)):
            torch.testing.assert_close(reward.at_input(n)(MASKS[n : n + 1], False), together[n : n + 1])


def test_no_more_rows_at_once_than_told() -> None:
    network = Network(Watched())
    with network.frozen() as run:
        objective = build(run, 0, perturbation="blur")
        network.model.rows.clear()
        for rows, wanted in ((1, [1] * 20), (3, [3] * 4 + [2] * 4), (5, [5] * 4), (10, [10] * 2), (11, [10] * 2)):
            ChunkedReward(objective, rows)(MASKS, False)
            assert network.model.rows == wanted
            network.model.rows.clear()


def test_large_inputs_are_evaluated_one_by_one_without_gradient_too() -> None:
    model = Watched()
    explain(Network(model, memory=1e-9), X[:1], 1, areas=AREAS)
    assert set(model.rows) == {1}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (torch.OutOfMemoryError, "CUDA"),
        (MemoryError, ""),
        (RuntimeError, "x: can't allocate memory"),
        (RuntimeError, "Not enough memory resources are available to process this command"),
        (RuntimeError, "XPU out of memory"),
    ],
)
def test_out_of_memory_halves_the_chunks(error: type[Exception], text: str) -> None:
    network = Network(Watched(3, error, text))
    whole = Network(toy())
    with network.frozen() as run, whole.frozen() as other:
        network.model.most = 5
        objective = build(run, 0, perturbation="blur")
        wanted = build(other, 0, perturbation="blur").reward(MASKS, False)
        network.model.most = 3
        reward = ChunkedReward(objective, 20)
        torch.testing.assert_close(reward.with_gradients(MASKS, False)[0], wanted, atol=1e-12, rtol=1e-10)
        assert reward.max_rows == 2
        masks = MASKS.clone().requires_grad_()
        torch.testing.assert_close(reward(masks, False), wanted, atol=1e-12, rtol=1e-10)


def test_one_row_that_does_not_fit_is_told() -> None:
    network = Network(Watched())
    with network.frozen() as run:
        objective = build(run, 0)
        network.model.most = 0
        with pytest.raises(ExtremalValueError) as error:
            ChunkedReward(objective, 4)(MASKS, False)
    assert str(error.value) == (
        "one evaluation of the network must fit in memory, an input of shape (3, 16, 16) does not; "
        "use a smaller input or a device with more memory"
    )


def test_other_errors_pass() -> None:
    network = Network(Watched(error=RuntimeError, text="a bug"))
    with network.frozen() as run:
        objective = build(run, 0)
        network.model.most = 0
        with pytest.raises(RuntimeError, match="a bug"):
            ChunkedReward(objective, 4)(MASKS, False)


def test_a_batch_larger_than_memory_is_worked_through_in_batches() -> None:
    model, steps, told = Watched(), [], []
    small, large = (
        explain(
            Network(model, memory=memory),
            X,
            [0, 1, 2, 0, 1],
            areas=AREAS,
            solver=SHORT,
            on_step=steps.append if memory < 1 else None,
            on_evidence=(lambda *done: told.append(done)) if memory < 1 else None,
        )
        for memory in (2.5 * held() / 2**30, 1.0)
    )
    for name in ("masks", "scores", "binary_scores", "unseen_scores", "control_scores", "agreement", "trace_reward"):
        torch.testing.assert_close(getattr(small, name), getattr(large, name), atol=1e-9, rtol=1e-7, equal_nan=True)
    assert small.target == large.target == (0, 1, 2, 0, 1)
    assert small.status == large.status
    first, *_, last = steps
    assert isinstance(first, Step)
    assert (first.index, last.index) == (0, last.total - 1)
    assert [step.index for step in steps] == list(range(last.total)), "three blocks of 2, 2, 1"
    assert len({total for _, total in told}) == 1
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1]
    passes = [result.settings["evaluations"]["gradients"] for result in (small, large)]
    assert passes[0] == passes[1]


def held() -> int:
    model = toy()
    x = X[:1].clone().requires_grad_()
    return activation_bytes(lambda: model(x), model.parameters())


def test_judge_in_batches() -> None:
    cuts = cut(MASKS[:, :2], AREAS)
    small, large = (
        judge(Network(toy(), memory=memory), X, cuts, 1, areas=AREAS) for memory in (1.5 * held() / 2**30, 1.0)
    )
    torch.testing.assert_close(small.unseen_scores, large.unseen_scores, atol=1e-9, rtol=1e-7)


def test_batches_of_which_one_ends_early_are_joined() -> None:
    with pytest.warns(RuntimeWarning, match="the run of input 1 met a score that is not finite"):
        result = explain(
            Network(Brittle(), memory=1e-9),
            BRITTLE_INPUTS,
            0,
            areas=AREAS,
            game="delete",
            perturbation=dim,
            solver=SHORT,
        )
    assert [row[0] == Status.NOT_FINITE for row in result.status] == [False, True]
    assert result.trace_reward.shape == (2, len(result.trace_step))
    assert bool(result.trace_reward[1].isnan().any())
    assert not bool(result.trace_reward[0].isnan().any())


def test_a_target_for_each_input_is_checked_before_anything_runs() -> None:
    with pytest.raises(ExtremalValueError, match="one for each of 5 inputs, got 2"):
        explain(Network(toy(), memory=1e-9), X, [0, 1])


def test_a_target_of_one_number_stands_for_all_inputs() -> None:
    result = explain(Network(toy(), memory=1e-9), X[:2], torch.tensor(1), areas=AREAS, solver=SHORT)
    assert result.target == (1, 1)


def test_activations_are_counted_once_and_without_the_weights() -> None:
    x = torch.zeros(10, 7, requires_grad=True)
    weight = torch.ones(7, 7)
    assert activation_bytes(lambda: ((x @ weight).exp() * 2).exp().sum(), [weight]) == 2 * 10 * 7 * 4
    assert activation_bytes(lambda: x.detach() @ weight) == 0


def test_the_budget_of_a_processor() -> None:
    assert default_budget(torch.device("cpu")) == CPU_BUDGET


def test_rows_follow_the_budget() -> None:
    for memory, rows in ((3.5 * held(), 3), (0.5 * held(), 1), (10.01 * held(), 10)):
        network = Network(toy(), memory=memory / 2**30)
        with network.frozen() as run:
            run.accelerate(X)
            assert run.max_batch_size(X) == rows


def test_keep_freed_memory_tells_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    class Library:
        gnu_get_libc_version = None

        def __init__(self, _: None) -> None: ...

        def mallopt(self, name: int, value: int) -> int:
            told.append((name, value))
            return 1

    monkeypatch.setattr("ctypes.CDLL", Library)
    monkeypatch.setattr("sys.platform", "linux")
    assert keep_freed_memory()
    assert told == [(-4, 0), (-1, 2**31 - 1), (-2, 2**26)]
    monkeypatch.setattr("sys.platform", "darwin")
    assert not keep_freed_memory()
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()


@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
def test_half_precision_answers_alike(precision: str) -> None:
    exact, half = (
        judge(Network(toy().float(), precision=p), X.float(), cut(MASKS[:, :2].float(), AREAS), 1, areas=AREAS)
        for p in ("float32", precision)
    )
    assert half.binary_scores.dtype == torch.float32
    torch.testing.assert_close(half.binary_scores, exact.binary_scores, atol=2e-2, rtol=0)
    assert half.settings["precision"] == precision


def test_bad_settings_of_a_network_are_told() -> None:
    with pytest.raises(ExtremalValueError) as error:
        Network(toy(), precision="int8")
    assert str(error.value) == "precision must be one of float32, bfloat16, auto, got 'int8'"
    with pytest.raises(ExtremalValueError) as error:
        Network(toy(), memory=0)
    assert str(error.value) == "memory must be above 0 and finite, got 0; it is in GiB, e.g. 2"


def test_a_perturbation_is_made_for_each_part() -> None:
    """Fade of a part is the part of the fade."""
    network = Network(toy())
    with network.frozen() as run:
        objective = build(run, [0, 1, 2, 0, 1], perturbation=Fade(), score="logit")
        part = objective.subset(1, 3)
        assert (part.class_indices, part.names) == ((1, 2), ("class 1", "class 2"))
        torch.testing.assert_close(part.reward(MASKS[1:3], False), objective.reward(MASKS, False)[1:3])
        assert objective.subset(0, 5) is objective


def test_what_was_counted_is_let_go() -> None:
    """Some operations save their own output: were it kept with its graph, it would hold itself."""
    x = torch.randn(4, 8, requires_grad=True)

    def alive() -> int:
        gc.collect()
        return sum(type(one) is Tensor and one.shape == (4, 8) for one in gc.get_objects())

    before = alive()
    for _ in range(3):
        assert activation_bytes(lambda: torch.sigmoid(x).sum()) > 0
    assert alive() == before
