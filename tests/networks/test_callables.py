"""Functions as networks, further inputs, fixed batches, and the errors of networks in one sentence."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError, NetworkError
from extremal.explanations.explain import explain
from extremal.explanations.explanation import Explanation
from extremal.masking.solvers import Consensus
from extremal.networks.network import Network
from support.toys import Square, overlap

X = 0.2 + 0.6 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SHORT = Consensus(steps=6, least=12)


MODEL = Square()


def run(network: object, x: object = X, target: object = 1) -> Explanation:
    return explain(network, x, target, areas=(0.1,), solver=SHORT, perturbation="fade")  # type: ignore[arg-type]


EXPECTED = run(MODEL)


def refused(network: object, x: object = X, target: object = 1) -> str:
    with pytest.raises((ExtremalValueError, ExtremalTypeError)) as error:
        run(network, x, target)
    return str(error.value)


def assert_same(found: Explanation) -> None:
    assert torch.equal(found.masks, EXPECTED.masks)
    assert torch.equal(found.scores, EXPECTED.scores)
    assert overlap(found.binary(0.1)[0, 0, 8:20, 8:20], torch.ones(12, 12)) > 0.6


def by_global_name(x: Tensor) -> Tensor:
    return MODEL(x)


def by_default(x: Tensor, model: nn.Module = MODEL) -> Tensor:
    scores: Tensor = model(x)
    return scores


class Scorer:
    """An object that is called, and has a network."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, x: Tensor) -> Tensor:
        scores: Tensor = self.model(x)
        return scores

    def score(self, x: Tensor) -> Tensor:
        return self(x)


FUNCTIONS = {
    "a lambda": lambda x: MODEL(x) + 0,
    "a function that names a module": by_global_name,
    "a default": by_default,
    "a bound method of a module": MODEL.forward,
    "a partial": partial(by_default, model=MODEL),
    "an object": Scorer(MODEL),
    "a bound method of an object": Scorer(MODEL).score,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_a_network_whose_modules_are_frozen(name: str) -> None:
    MODEL.train()
    before = MODEL.norm.running_mean.clone()  # type: ignore[union-attr]
    assert_same(run(FUNCTIONS[name]))
    assert MODEL.training
    assert torch.equal(MODEL.norm.running_mean, before)  # type: ignore[arg-type]
    assert all(parameter.requires_grad for parameter in MODEL.parameters())


def test_a_captured_module_is_found() -> None:
    model = Square()
    network = Network(lambda x: model(x) + 0)  # type: ignore[arg-type]
    assert network.name == "<lambda>"
    assert model in set(network.model.modules())
    assert_same(run(network))


def test_arrays_are_lists() -> None:
    assert_same(run(MODEL, X, np.array([1])))
    assert_same(run(MODEL, X, np.array(1)))
    assert_same(run(MODEL, X, np.int64(1)))
    assert run(MODEL, X, np.array([1, 2])).target == (1, 2)
    assert refused(MODEL, X, np.array([[1, 2]])) == (
        "a tensor of targets must hold a class for each input, (N,), got shape (1, 2); a group of classes is a list "
        "inside a list"
    )


class WithMask(Square):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x * mask)


class ByName(Square):
    def forward(self, *, image: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(image * mask)


class ByKey(Square):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(batch["image"])


def test_further_inputs_are_told() -> None:
    reason = "a network must take the prepared input, {} raised TypeError for an input (N, C, *S) of 3 channels with "
    reason += "32 × 32 places: {}; pass all that it takes with Network(model, inputs=lambda x: {})"
    assert refused(WithMask()) == reason.format(
        "WithMask",
        "WithMask.forward() missing 1 required positional argument: 'mask'",
        "{'x': ..., 'mask': ...}",
    )
    assert refused(ByName()) == reason.format(
        "ByName",
        "ByName.forward() takes 1 positional argument but 2 were given",
        "{'image': ..., 'mask': ...}",
    )
    assert refused(ByKey()).endswith(
        "check the input's size and channels; if it takes a dict or further inputs, pass them with "
        "Network(model, inputs=lambda x: ...)"
    )


def test_further_inputs_are_passed() -> None:
    assert_same(run(Network(WithMask(), inputs=lambda x: (x, torch.ones(len(x), 1, 1, 1)))))
    assert_same(run(Network(ByName(), inputs=lambda x: {"image": x, "mask": torch.ones(())})))
    assert_same(run(Network(ByKey(), inputs=lambda x: ({"image": x},))))
    with pytest.raises(ExtremalTypeError) as error:
        Network(ByName(), inputs={"mask": 1})  # type: ignore[arg-type]
    assert str(error.value) == (
        "inputs must be a function from x (B, C, *S) to the model's arguments, got dict; e.g. lambda x: {'image': x}"
    )


def test_a_missing_batch_axis_is_told() -> None:
    assert refused(MODEL, X[0]) == (
        "a network must take the prepared input, Square raised ValueError for an input (N, C, *S) of 32 channels with "
        "32 places: expected 4D input (got 3D input); add the batch axis with x[None] if it is missing"
    )


def test_an_image_without_batch_axis_is_not_read_as_a_signal() -> None:
    """Convolutions take (C, H, W) without a batch, so that (1, H, W) would be read as one signal of H channels."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), Flattened(), nn.Linear(4 * 16 * 16, 3))
    assert run(model, torch.rand(1, 1, 16, 16)).masks.shape == (1, 1, 1, 16, 16)
    assert refused(model, torch.rand(1, 16, 16)) == (
        "a network for images must take inputs (N, C, H, W), Sequential got an input (N, C, *S) of 16 channels with 16 "
        "places; add the batch axis with x[None]"
    )


class Flattened(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 4 * 16 * 16)


def test_channels_last_are_told() -> None:
    assert refused(MODEL, X.movedim(1, -1)).endswith("put them first with x.movedim(-1, 1)")


@pytest.mark.parametrize("reshape", ["view", "reshape"])
def test_a_batch_of_one_is_evaluated_row_by_row(reshape: str) -> None:
    class Fixed(Square):
        def forward(self, x: Tensor) -> Tensor:
            assert len(x) == 1
            return super().forward(getattr(x, reshape)(1, 3, 32, 32))

    found = run(Fixed())
    torch.testing.assert_close(found.masks, EXPECTED.masks, atol=1e-4, rtol=0)
    assert run(Fixed(), torch.cat([X, X.flip(1)])).masks.shape == (2, 1, 1, 32, 32)


def test_only_the_first_row_is_returned() -> None:
    class First(Square):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:1]

    torch.testing.assert_close(run(First()).masks, EXPECTED.masks, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("error", "text"), [(RuntimeError("a bug"), "RuntimeError"), (SystemExit(0), "SystemExit")])
def test_a_network_that_fails_later(error: BaseException, text: str) -> None:
    class Failing(Square):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 12:
                raise error
            return super().forward(x)

    with pytest.raises(NetworkError, match=f"a network must be evaluated without an error, Failing raised {text} for"):
        run(Failing())


@pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemExit(0)])
def test_a_network_of_single_rows_that_fails_later(error: BaseException) -> None:
    class Failing(Square):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if len(x) > 1:
                raise ValueError("one row only")
            if self.calls > 40:
                raise error
            return super().forward(x)

    with pytest.raises(NetworkError, match="a network must be evaluated without an error, Failing raised"):
        run(Failing())


def test_an_error_that_cannot_describe_itself() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Failing(Square):
        def forward(self, x: Tensor) -> Tensor:
            raise Mute

    assert ": Mute; check the input's size" in refused(Failing())


def test_a_preprocess_that_fails() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)

    def leave(image: object) -> Tensor:
        raise SystemExit(0)

    assert refused(Network(MODEL, leave), pixels) == (
        "preprocess must turn an RGB image into a tensor (C, H, W), that of Square raised SystemExit: 0; correct it, "
        "or leave the image out"
    )
    assert refused(Network(MODEL, np.asarray), pixels) == (  # type: ignore[arg-type]
        "preprocess must turn an RGB image into a tensor (C, H, W), that of Square returned a ndarray; end it with "
        "torchvision's ToTensor, or torch.from_numpy"
    )


def test_a_forward_in_inference_mode() -> None:
    class Inference(Square):
        @torch.inference_mode()
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    assert refused(Inference()) == (
        "a network must compute with a gradient, Inference computes in torch.inference_mode; remove it from its forward"
    )


def test_dropout_that_ignores_the_mode() -> None:
    class Noisy(Square):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * nn.functional.dropout(torch.ones(len(x), 15), 0.5).mean(1, keepdim=True)

    message = refused(Noisy())
    assert message.startswith("a network must give the same output for the same input, Noisy's score changed by ")
    assert message.endswith(
        " in a second evaluation; look for noise, and for dropout that ignores eval(), e.g. F.dropout without "
        "training=self.training"
    )
