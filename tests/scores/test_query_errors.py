"""Error messages of queries."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from extremal import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.scores import Box, Classes, ClassWithout, Output, Query, Segment, Similarity, Unit
from support.query_toys import A, B, Detector, Segmenter, Tower, X, embedder, looks, texture_in, three, value
from support.toys import texture


def error_of(model: nn.Module, build: Callable[[], Query]) -> tuple[type[Exception], str]:
    with pytest.raises(ExtremalError) as caught:
        value(model, build())
    return type(caught.value), str(caught.value)


NAN = torch.tensor([1.0, math.nan])
ERRORS: list[tuple[nn.Module, Callable[[], Query], type[ExtremalError], str]] = [
    (
        three(),
        lambda: Classes([1]),  # type: ignore[arg-type]
        ExtremalTypeError,
        "weights must map classes to numbers, got list; e.g. {'cat': 1, 'dog': -1}",
    ),
    (
        three(),
        lambda: Classes({}),
        ExtremalValueError,
        "weights must name at least one class, got none; e.g. {'cat': 1, 'dog': -1}",
    ),
    (
        three(),
        lambda: Classes({"cat": "1"}),  # type: ignore[dict-item]
        ExtremalTypeError,
        "weights must be numbers, got '1' for cat; e.g. 1",
    ),
    (
        three(),
        lambda: Classes({"cat": 1, 1: math.nan}),
        ExtremalValueError,
        "weights must be finite and not 0, got nan for class 1; leave out classes that do not count",
    ),
    (
        three(),
        lambda: Classes({"dog": 1, 1: 1}),
        ExtremalValueError,
        "weights must name every class once, got dog 2 times; sum its weights",
    ),
    (
        three(),
        lambda: Classes({0: 1, 3: 1}),
        ExtremalValueError,
        "a class must lie in 0..2 for Answering, got 3; classes are counted from 0",
    ),
    (
        three(),
        lambda: Classes({-1: 1}),
        ExtremalValueError,
        "a class must be at least 0 for Answering, got -1; classes are counted from 0",
    ),
    (
        three(),
        lambda: Classes({"dogs": 1}),
        ExtremalValueError,
        "target must be a class of Answering, got 'dogs'; nearest: dog",
    ),
    (
        three(),
        lambda: Classes({1.5: 1}),  # type: ignore[dict-item]
        ExtremalTypeError,
        "a class must be given by its index or name, got 1.5; e.g. 0",
    ),
    (
        three(),
        lambda: Classes({0: 1e30}),
        ExtremalValueError,
        "weights must lie between 1e-15 and 1e+15 in magnitude, got 1e+30 for class 0; divide all weights by the "
        "largest",
    ),
    (
        three(),
        lambda: Classes({0: 10**400}),
        ExtremalValueError,
        "weights must lie between 1e-15 and 1e+15 in magnitude, got a number of about 401 digits for class 0; divide "
        "all weights by the largest",
    ),
    *(
        (three(), build, ExtremalTypeError, f"a class must be given by its index or name, got {text}; e.g. 0")
        for build, text in (
            (lambda: ClassWithout(np.array([0, 1]), 1), "array([0, 1])"),  # type: ignore[arg-type]
            (lambda: ClassWithout(0, torch.tensor(0.0)), "tensor(0.)"),  # type: ignore[arg-type]
            (lambda: Box(label=np.array([[0], [1]])), "array([[0], [1]])"),  # type: ignore[arg-type]
        )
    ),
    *(
        (
            three(),
            lambda index=index: Output(index),
            ExtremalTypeError,
            f"the index of an output must be a whole number, got {text}; e.g. 0",
        )
        for index, text in ((np.array([0, 1]), "array([0, 1])"), (torch.tensor(0.0), "tensor(0.)"), (1.0, "1.0"))
    ),
    (
        three(),
        lambda: Output(0, np.array([0, 1])),  # type: ignore[arg-type]
        ExtremalTypeError,
        "the key of an output must be a text or a whole number, got array([0, 1]); e.g. 'logits'",
    ),
    (
        three(),
        lambda: Output(3),
        ExtremalValueError,
        "the index of an output must lie in 0..2 for Answering, got 3",
    ),
    (
        three(),
        lambda: Output("cat"),  # type: ignore[arg-type]
        ExtremalTypeError,
        "the index of an output must be a whole number, got 'cat'; e.g. 0",
    ),
    (
        three(lambda seen: {"age": seen}),
        lambda: Output(0),
        ExtremalTypeError,
        "an output must be a floating tensor (B,) or (B, K), Answering's is a dict with the keys 'age'; choose with "
        "key",
    ),
    (
        three(lambda seen: seen > 0),
        lambda: Output(0),
        ExtremalTypeError,
        "an output must be a floating tensor (B,) or (B, K), Answering's is torch.bool; wrap the network",
    ),
    (
        three(lambda seen: {"age": seen, "height": seen}),
        lambda: Output(0, "size"),
        ExtremalValueError,
        "a key must exist in the output of Answering, got 'size' for a dict with the keys 'age', 'height'",
    ),
    (
        three(),
        lambda: Output(0, "size"),
        ExtremalValueError,
        "a key must exist in the output of Answering, got 'size' for a Tensor",
    ),
    (
        three(lambda seen: seen[..., None]),
        lambda: Output(0),
        ExtremalValueError,
        "an output must be (B,) or (B, K) with B = 1, Answering's is (1, 3, 1); pass a callable on the output as "
        "target, or wrap the network",
    ),
    (
        Tower(X),
        lambda: Unit("pairs", 0),
        ExtremalValueError,
        "a layer must be the name of a module in Tower, got 'pairs'; did you mean pair? "
        "extremal.layers(network) or `extremal layers` lists "
        "them",
    ),
    (
        Tower(X),
        lambda: Unit("", 0),
        ExtremalTypeError,
        "a unit's layer must be the name of a module, got ''",
    ),
    (
        Tower(X),
        lambda: Unit("pair", 0, (1.5, 0)),  # type: ignore[arg-type]
        ExtremalTypeError,
        "a unit's channel and place must be whole numbers, got 1.5; e.g. 0",
    ),
    (Tower(X), lambda: Unit("pair", 2), ExtremalValueError, "channel must lie in 0..1 for 'pair', got 2"),
    (
        Tower(X),
        lambda: Unit("pair", 0, 5),
        ExtremalValueError,
        "place must have 2 numbers for 'pair', whose channels are (8, 8), got (5,)",
    ),
    (
        Tower(X),
        lambda: Unit("pair", 0, (5, 8)),
        ExtremalValueError,
        "place must lie within (8, 8) for 'pair', got (5, 8)",
    ),
    (
        Tower(X),
        lambda: Unit("behind", 0, 0),
        ExtremalValueError,
        "place must be None for 'behind', whose channels are units, got (0,)",
    ),
    (
        Tower(X),
        lambda: Unit("behind", 0, axis=2),
        ExtremalValueError,
        "axis must be one of 1..1 for an output of shape (1, 2) (axis 0 is the batch), got 2",
    ),
    (
        Tower(X),
        lambda: Unit("twice", 0),
        ExtremalValueError,
        "a queried layer must be called once and return one floating tensor (B, K, ...), 'twice' does not: "
        "it is called 2 times in a pass; extremal.layers(network) or `extremal layers` lists those that do",
    ),
    (
        Tower(X),
        lambda: Unit("both", 0),
        ExtremalValueError,
        "a queried layer must be called once and return one floating tensor (B, K, ...), 'both' does not: "
        "its output is a tuple; extremal.layers(network) or `extremal layers` lists those that do",
    ),
    (
        embedder(),
        lambda: Similarity([1.0]),  # type: ignore[arg-type]
        ExtremalTypeError,
        "a reference must be a floating tensor, an embedding (D,) or prepared inputs (M, C, *S), got list",
    ),
    (
        embedder(),
        lambda: Similarity(torch.ones(4, dtype=torch.int64)),
        ExtremalTypeError,
        "a reference must be a floating tensor, an embedding (D,) or prepared inputs (M, C, *S), got torch.int64",
    ),
    (
        embedder(),
        lambda: Similarity(torch.ones(0, 4)),
        ExtremalValueError,
        "a reference must be an embedding (D,) or (M, D), or prepared inputs (M, C, *S), got shape (0, 4)",
    ),
    (
        embedder(),
        lambda: Similarity(NAN),
        ExtremalValueError,
        "a reference must be finite, got 1 NaN or infinite numbers; clean it",
    ),
    (
        embedder(),
        lambda: Similarity(torch.ones(3)),
        ExtremalValueError,
        "a reference must have the size of the embedding, 4, got 3",
    ),
    (
        embedder(),
        lambda: Similarity(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]])),
        ExtremalValueError,
        "the embedding of a reference must not be zero, that of reference 1 is; use another reference",
    ),
    (
        embedder(),
        lambda: Similarity(X[..., :16]),
        ExtremalValueError,
        "a reference input must have the shape (M, C, *S) of the inputs, (M, 3, 32, 32), got (1, 3, 32, 16); prepare "
        "it in the same way",
    ),
    (
        three(lambda seen: 1 / seen),
        lambda: Similarity(texture_in(A, B)),
        ExtremalValueError,
        "the embedding of a reference must be finite, got 1 NaN or infinite numbers; clean it",
    ),
    (
        three(lambda seen: {"seen": seen}),
        lambda: Similarity(torch.ones(3)),
        ExtremalTypeError,
        "an embedding must be one floating tensor (B, ...), Answering returned dict; name a layer, or wrap the network",
    ),
    (
        Segmenter(X),
        lambda: Segment(3),
        ExtremalValueError,
        "a class must lie in 0..2 for Segmenter, got 3; classes are counted from 0",
    ),
    (
        Segmenter(X),
        lambda: Segment(1, score="loss"),
        ExtremalValueError,
        "score must be one of margin, logit, probability, log-probability, contrastive, negative, sigmoid or a "
        "callable, got 'loss'",
    ),
    (
        Segmenter(X),
        lambda: Segment(1, torch.ones(32, 32)),
        ExtremalTypeError,
        "a region must be a bool tensor (*S), got torch.float32; e.g. mask > 0.5",
    ),
    (
        Segmenter(X),
        lambda: Segment(1, torch.zeros(32, 32) > 0),
        ExtremalValueError,
        "a region must contain a place, got none; omit it to use the predicted region",
    ),
    (
        Segmenter(X),
        lambda: Segment(1, torch.ones(8, 8) > 0),
        ExtremalValueError,
        "a region must have the shape (32, 32) of the input, got (8, 8)",
    ),
    (
        Segmenter(texture_in(A)),
        lambda: Segment("car"),
        ExtremalValueError,
        "a segmentation must predict the class somewhere, Segmenter predicts car nowhere on input 0; it predicts cat, "
        "dog: choose one of these, or pass a region",
    ),
    (
        Segmenter(X, lambda maps: -maps[:, 1:2], classes=1),
        lambda: Segment(0),
        ExtremalValueError,
        "a segmentation must predict the class somewhere, Segmenter predicts cat nowhere on input 0; pass a region",
    ),
    (
        three(),
        lambda: Segment(0),
        ExtremalTypeError,
        "a segmentation network must return floating scores (B, classes, *places), or a mapping with these under 'out' "
        "or 'logits', Answering returned torch.float32 (1, 3); wrap the network",
    ),
    (
        Detector(X, looks()),
        lambda: Box((4, 4, 12)),  # type: ignore[arg-type]
        ExtremalValueError,
        "a box must be four finite numbers x1, y1, x2, y2 in pixels, got (4, 4, 12)",
    ),
    (
        Detector(X, looks()),
        lambda: Box((12, 4, 4, 12)),
        ExtremalValueError,
        "a box must have x1 < x2 and y1 < y2, got 12, 4, 4, 12",
    ),
    (
        Detector(texture(1, 3, 32, 32, seed=1), looks()),
        Box,
        ExtremalValueError,
        "a detector must find a box on the unperturbed input, Detector finds none on input 0; lower its score "
        "threshold, or choose another input",
    ),
    (
        Detector(X, looks()),
        lambda: Box(label="car"),
        ExtremalValueError,
        "a detector must find a box of car on the unperturbed input, Detector finds none on input 0 but 2 dog; "
        "choose one of these",
    ),
    (
        Detector(X, looks()),
        lambda: Box((8, 4, 16, 12), 1),
        ExtremalValueError,
        "a detector must find the box on the unperturbed input with an IoU of at least 0.5, the best box of dog that "
        "Detector finds on input 0 has 0.33, of 2 dog; box=None selects the best",
    ),
    (
        Detector(X, looks()),
        lambda: Box(label=3),
        ExtremalValueError,
        "a class must lie in 0..2 for Detector, got 3; classes are counted from 0",
    ),
    (
        three(),
        Box,
        ExtremalTypeError,
        "a detector must return for each input a mapping with boxes (M, 4), labels (M,) and scores (M,), or logits and "
        "pred_boxes of queries, or predictions (B, 4 + labels, anchors); Answering has 3 labels and returned a tensor "
        "(1, 3); wrap the network",
    ),
    (
        three(lambda seen: [{"boxes": seen, "scores": seen}]),
        Box,
        ExtremalTypeError,
        "a detector must return for each input a mapping with boxes (M, 4), labels (M,) and scores (M,), or logits and "
        "pred_boxes of queries, or predictions (B, 4 + labels, anchors); Answering has 3 labels and returned a list of "
        "1 dict with the keys boxes, scores; wrap the network",
    ),
]


@pytest.mark.parametrize(("model", "build", "kind", "message"), ERRORS, ids=[str(n) for n in range(len(ERRORS))])
def test_errors(model: nn.Module, build: Callable[[], Query], kind: type[ExtremalError], message: str) -> None:
    assert error_of(model, build) == (kind, message)
