"""Callables on pictures as networks: what they are given, how their answers are read, and what is refused."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError, NetworkError
from extremal.networks.black_box import MIN_PROBABILITY, BlackBox, is_plain_function
from extremal.networks.network import Network
from extremal.networks.resolve import as_network
from extremal.networks.run import MAX_FORWARD_ROWS


def colours(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The mean of each channel, in 0..255."""
    means: np.ndarray[Any, Any] = pictures.mean((1, 2))
    return means


def scores_of(predict: Callable[..., object], x: Tensor, **options: Any) -> Tensor:
    with BlackBox(predict, **options).frozen() as run:
        return run(x)


def inputs(count: int = 1, side: int = 8) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def message_of(predict: Callable[..., object], count: int = 1, **options: Any) -> str:
    with pytest.raises(ExtremalValueError) as error:
        scores_of(predict, inputs(count), **options)
    return str(error.value)


def test_it_is_given_the_pixels_of_the_image() -> None:
    given = list[np.ndarray[Any, Any]]()

    def predict(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        given.append(pictures)
        return colours(pictures)

    pixels = np.random.default_rng(0).integers(0, 256, (10, 14, 3)).astype(np.uint8)
    box = BlackBox(predict)
    scores = scores_of(predict, box.prepare(Image.fromarray(pixels)))
    (pictures,) = given
    assert pictures.dtype == np.uint8
    assert pictures.flags["C_CONTIGUOUS"]
    assert np.array_equal(pictures[0], pixels)
    assert torch.allclose(scores[0], torch.from_numpy(pixels.mean((0, 1))).float())
    images = box.to_images(box.prepare(Image.fromarray(pixels)))
    assert images is not None
    assert np.array_equal(images[0].numpy(), pixels)


def test_images_are_cropped_and_resized_to_its_size() -> None:
    box = BlackBox(colours, size=(20, 30))
    assert box.prepare(Image.new("RGB", (200, 100))).shape == (1, 3, 20, 30)
    assert BlackBox(colours).prepare(Image.new("RGB", (11, 9))).shape == (1, 3, 9, 11)


def test_values_beyond_those_of_pixels_are_clipped() -> None:
    scores = scores_of(colours, torch.stack([torch.full((3, 4, 4), -9.0), torch.full((3, 4, 4), 9.0)]))
    assert scores.tolist() == [[0.0] * 3, [255.0] * 3]


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        torch.from_numpy,
        lambda values: values.tolist(),
        lambda values: [values],
        lambda values: [*values],
        lambda values: values.astype(np.float16),
        lambda values: tuple(map(tuple, values)),
    ],
    ids=["array", "tensor", "lists", "session", "rows", "half", "tuples"],
)
def test_answers_of_every_kind(convert: Callable[[Any], object]) -> None:
    x = inputs(2)
    scores = scores_of(lambda pictures: convert(colours(pictures)), x)
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, scores_of(colours, x), atol=0.1)


def test_calls_have_at_most_so_many_pictures() -> None:
    counts = list[int]()

    def predict(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        counts.append(len(pictures))
        return colours(pictures)

    scores = scores_of(predict, inputs(7), max_rows=3)
    assert counts == [3, 3, 1]
    assert torch.equal(scores, scores_of(colours, inputs(7)))


class TestProbabilities:
    def test_logarithms_are_explained_and_that_is_said_once(self) -> None:
        def predict(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            means = colours(pictures)
            return means / means.sum(1, keepdims=True)

        box = BlackBox(predict, name="api")
        with box.frozen() as run, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scores = run(inputs(3))
            run(inputs(3))
        expected = torch.from_numpy(predict(BlackBoxPictures.of(inputs(3)))).float().log()
        assert torch.allclose(scores, expected, atol=1e-4)
        assert [str(one.message) for one in caught] == [
            "the scores of api sum to one: they are taken as probabilities, and their logarithms are explained; "
            "BlackBox(..., outputs='probabilities') or 'logits' says which they are"
        ]

    @pytest.mark.parametrize("outputs", ["probabilities", "logits"])
    def test_nothing_is_said_where_the_kind_is_named(self, outputs: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scores = scores_of(lambda pictures: [[0.0, 1.0]] * len(pictures), inputs(), outputs=outputs)
        logs = [np.log(MIN_PROBABILITY), 0.0]
        assert scores[0].tolist() == pytest.approx(logs if outputs == "probabilities" else [0.0, 1.0], abs=1e-6)

    def test_those_of_independent_labels_become_log_odds(self) -> None:
        scores = scores_of(lambda pictures: [[0.75, 0.5, 0.0]] * len(pictures), inputs(), outputs="probabilities")
        odds = [np.log(3.0), 0.0, np.log(MIN_PROBABILITY)]
        assert scores[0].tolist() == pytest.approx(odds, abs=1e-5)

    def test_one_score_is_no_probability_unless_named(self) -> None:
        assert scores_of(lambda pictures: [[1.0]] * len(pictures), inputs()).tolist() == [[1.0]]

    def test_one_probability_is_that_of_a_label_however_near_to_one(self) -> None:
        answers = iter([[[0.999]], [[0.5]], [[0.995]]])
        box = BlackBox(lambda pictures: next(answers), outputs="probabilities")
        with box.frozen() as run:
            scores = [float(run(inputs())) for _ in range(3)]
        assert scores == pytest.approx([np.log(999.0), 0.0, np.log(199.0)], abs=1e-3)

    def test_the_first_answer_decides_whether_they_sum_to_one(self) -> None:
        answers = iter([[[0.7, 0.3]], [[0.72, 0.3]], [[0.7, 0.6]]])
        box = BlackBox(lambda pictures: next(answers), outputs="probabilities")
        with box.frozen() as run:
            for expected in ([0.7, 0.3], [0.72, 0.3]):
                assert run(inputs())[0].tolist() == pytest.approx(np.log(expected), abs=1e-5)
            with pytest.raises(ExtremalValueError) as error:
                run(inputs())
        assert str(error.value) == (
            "probabilities must sum to one for every picture or for none, those of black box did at first, and differ "
            "by 0.3 from it now; pass outputs='logits' and return log-odds, or normalise them"
        )

    def test_scores_that_are_none(self) -> None:
        assert message_of(lambda pictures: [[3.0, -1.0]], outputs="probabilities") == (
            "probabilities must lie in [0, 1], black box returned -1 to 3; pass outputs='logits'"
        )


class BlackBoxPictures:
    """The pictures that a black box is given for inputs."""

    @staticmethod
    def of(x: Tensor) -> np.ndarray[Any, Any]:
        given = list[np.ndarray[Any, Any]]()
        scores_of(lambda pictures: (given.append(pictures), colours(pictures))[1], x)
        return given[0]


class TestRefusals:
    def test_an_error_of_the_callable(self) -> None:
        def predict(pictures: object) -> object:
            raise ConnectionError("refused")

        assert message_of(predict) == (
            "a black box must take pictures (B, H, W, 3), uint8 arrays, predict raised ConnectionError: refused for "
            "pictures (1, 8, 8, 3); give their size with BlackBox(predict, size=(H, W)), and max_rows=1 if it takes "
            "one at a time"
        )

    def test_an_error_after_it_has_answered(self) -> None:
        answers = iter([[[1.0, 2.0]]])
        with BlackBox(lambda pictures: next(answers)).frozen() as run:
            run(inputs())
            with pytest.raises(
                NetworkError, match=r"^a black box must answer without an error, black box raised StopI"
            ):
                run(inputs())

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            ([1.0, 2.0], r"row of scores for each picture, \(B, C\), black box returned \(2,\) for 2 pictures"),
            ([[1.0, 2.0]], r"row of scores for each picture, \(B, C\), black box returned \(1, 2\) for 2 pictures"),
            (np.zeros((2, 3, 4)), r"must return scores \(B, C\), black box returned \(2, 3, 4\); average or select"),
            (None, r"row of scores for each picture, \(B, C\), black box returned \(\) for 2 pictures"),
        ],
    )
    def test_shapes(self, answer: object, message: str) -> None:
        with pytest.raises(ExtremalValueError, match=message):
            scores_of(lambda _: answer, inputs(2))

    @pytest.mark.parametrize("answer", [[["a", "b"]], [[1.0], [2.0, 3.0]], {"scores": [1.0]}, object()])
    def test_answers_that_are_no_numbers(self, answer: object) -> None:
        with pytest.raises(
            ExtremalTypeError, match=r"must return scores \(B, C\) as an array, a tensor or nested list"
        ):
            scores_of(lambda _: answer, inputs(2))

    def test_complex_numbers(self) -> None:
        with pytest.raises(ExtremalTypeError, match=r"real scores, black box returned torch.complex"):
            scores_of(lambda _: torch.zeros(1, 2, dtype=torch.complex64), inputs())

    def test_another_number_of_scores(self) -> None:
        widths = iter([2, 3])
        message = message_of(lambda _: np.zeros((1, next(widths))), 2, max_rows=1)
        assert message == (
            "a black box must return the same number of scores for every picture, black box returned 2 and then 3; "
            "return a row of scores of all classes"
        )

    def test_an_answer_that_changes(self) -> None:
        answers = iter(np.linspace(1, 2, 20).reshape(10, 1, 2))
        with (
            BlackBox(lambda _: next(answers)).frozen() as run,
            pytest.raises(ExtremalValueError) as error,
        ):
            run.accelerate(inputs())
        assert str(error.value) == (
            "a black box must give the same answer for the same input, black box's scores changed by up to 0.105 in a "
            "second call, the largest is 1.05; switch off noise and sampling in it"
        )

    def test_inputs_that_are_no_pictures(self) -> None:
        with pytest.raises(ExtremalValueError, match=r"asked about pictures, inputs \(N, 3, H, W\), got \(1, 3, 8\)"):
            scores_of(colours, torch.zeros(1, 3, 8))

    @pytest.mark.parametrize(
        ("options", "kind", "message"),
        [
            ({"size": 5}, ExtremalTypeError, r"size must be \(height, width\) in px, got 5; e.g. \(224, 224\)"),
            ({"size": (0, 8)}, ExtremalValueError, "height must be at least 4, got 0"),
            ({"max_rows": 0}, ExtremalValueError, "max_rows must be at least 1, got 0"),
            ({"outputs": "odds"}, ExtremalValueError, "outputs must be one of auto, logits, probabilities, got 'odds'"),
        ],
    )
    def test_options(self, options: dict[str, Any], kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=f"^{message}"):
            BlackBox(colours, **options)

    @pytest.mark.parametrize("model", [nn.Linear(1, 1), Network(nn.Identity()), nn.Linear, 3])
    def test_what_is_no_callable_on_pictures(self, model: object) -> None:
        with pytest.raises(ExtremalTypeError, match=r"^a black box must be a function of pictures"):
            BlackBox(model)  # type: ignore[arg-type]


def test_networks_without_a_gradient_are_not_run_to_measure_memory() -> None:
    net = Network(nn.Flatten(), gradient=False)
    with net.frozen() as run:
        assert run.max_batch_size(inputs()) == MAX_FORWARD_ROWS
        assert (run.forwards, run.gradients) == (0, 0)
        run.accelerate(inputs())
        assert (run.forwards, run.gradients) == (2, 0)


def test_names() -> None:
    assert [BlackBox(call).name for call in (colours, partial(colours), lambda pictures: pictures)] == [
        *("colours", "colours", "black box")
    ]
    assert BlackBox(colours, name="api").name == "api"


def test_plain_functions_are_black_boxes_where_pictures_are_taken() -> None:
    assert isinstance(as_network(colours, takes_pictures=True), BlackBox)
    assert as_network(colours).gradient
    module = nn.Flatten()
    assert as_network(module, takes_pictures=True).model is module
    assert not is_plain_function(nn.Linear)
