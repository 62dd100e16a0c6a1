"""Queries to networks that return more than one tensor."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from extremal import Network
from extremal.scores import Classes, Segment, Similarity
from support.errors import message_of
from support.query_toys import Segmenter, X, value

MAPS = (
    lambda maps: {"out": maps, "aux": -maps},
    lambda maps: {"logits": maps},
    lambda maps: SimpleNamespace(out=maps),
    lambda maps: SimpleNamespace(logits=maps, loss=None),
)


@pytest.mark.parametrize("answer", MAPS)
def test_maps_are_read_from_outputs(answer: Callable[[Tensor], object]) -> None:
    model = Segmenter(X)
    for query in (Segment(1), Classes({1: 1.0})):
        assert value(Segmenter(X, answer), query).tolist() == value(model, query).tolist()


def bind(answer: Callable[[Tensor], object], query: Segment, labels: tuple[str, ...] = ()) -> None:
    with Network(Segmenter(X, answer), labels=labels).frozen() as run:
        query.bind(run, X)


def test_maps_must_have_the_places_of_the_input() -> None:
    assert message_of(bind, lambda maps: maps.flatten(2), Segment(1)) == (
        "a segmentation must have places in the 2 dimensions of its input, Segmenter returned (1, 3, 64); wrap it to "
        "return (B, classes, *places), or ask for a class"
    )


@pytest.mark.parametrize("labels", [("cat", "dog"), tuple("abcdefgh")])
def test_maps_must_have_the_classes_of_the_labels(labels: tuple[str, ...]) -> None:
    assert message_of(bind, lambda maps: maps, Segment(1), labels) == (
        f"labels must name each class once, Segmenter returns scores of 3 and has {len(labels)} labels; pass "
        "Network(model, labels=...) with one name for each output, in their order"
    )


class Encoder(nn.Module):
    def __init__(self, answer: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        return self.answer(x.flatten(2).mean(2))  # (B, 3)


@pytest.mark.parametrize(
    "answer",
    [
        lambda e: e,
        lambda e: {"image_embeds": e, "last_hidden_state": -e[:, None]},
        lambda e: SimpleNamespace(last_hidden_state=-e[:, None], pooler_output=e),
        lambda e: SimpleNamespace(last_hidden_state=torch.stack([e, -e], 1), pooler_output=None),
        lambda e: {"last_hidden_state": e[:, :, None, None].expand(-1, -1, 2, 2)},
    ],
)
def test_embeddings_are_read_from_outputs(answer: Callable[[Tensor], object]) -> None:
    x = torch.tensor([3.0, 4.0, 0.0]).view(1, 3, 1, 1).expand(-1, -1, 4, 4)
    with Network(Encoder(answer)).frozen() as run:
        for reference in (torch.tensor([1.0, 0.0, 0.0]), torch.eye(3)[:1, :, None, None].expand(-1, -1, 4, 4)):
            scores = Similarity(reference).bind(run, x)(x, torch.tensor([0]))
            assert scores.tolist() == pytest.approx([0.6])


def test_a_whole_encoder_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=16, patch_size=8)).eval()
    x = torch.randn(2, 3, 16, 16)
    with Network(model).frozen() as run, torch.no_grad():
        expected = torch.cosine_similarity(model(x).pooler_output, model(x[:1]).pooler_output)
        found = Similarity(x[:1]).bind(run, x)(x, torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
