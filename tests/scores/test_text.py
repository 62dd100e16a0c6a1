"""Texts, retrieval and pooled tokens: planted places are found, and values are those of transformers' own outputs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extremal import Network, explain, zoo
from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.networks.text_encoder import TextEncoder
from extremal.networks.zoo.huggingface_adapter import TransformersAdapter
from extremal.scores import Query, Similarity, Text
from extremal.scores.text import log_odds
from support.families import assert_explains_and_restores
from support.query_toys import A, B, X, mask_of, texture_in
from support.toys import overlap
from support.vlm_toys import ID, build_tokenizer, t

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VISION = {**TINY, "image_size": 32, "patch_size": 8}
TEXT = {**TINY, "vocab_size": 80, "max_position_embeddings": 8, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 1}
AREA = float(mask_of(A).mean())


class PlantedPair(nn.Module):
    """Embeds pictures by their texture in two places, texts by their words: "bus" is the first, "cat" the second."""

    def __init__(self, bias: float | None = None) -> None:
        super().__init__()
        self.register_buffer("template", X.clone())
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        if bias is not None:
            self.logit_bias = nn.Parameter(torch.tensor(bias))
        self.config = SimpleNamespace(max_position_embeddings=8)

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (B, 3)."""
        correlation = pixel_values * self.template
        seen = [torch.tanh(2 * correlation[(..., *place)].flatten(1).mean(1)) for place in (A, B)]
        return torch.stack([*seen, torch.full_like(seen[0], 0.5)], 1)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(M, T) -> (M, 3)."""
        words = [(input_ids == ID[word]).any(1).float() for word in ("bus", "cat")]
        return torch.stack([*words, torch.zeros_like(words[0])], 1) + 1e-3


def planted(bias: float | None = None) -> Network:
    pair = PlantedPair(bias)
    encoder = TextEncoder(pair, build_tokenizer(), "planted")
    adapter = TransformersAdapter(pair, lambda model, pixels: model.get_image_features(pixels), encoder)
    return Network(adapter, name="planted")


def score(net: Network, query: Query, x: Tensor) -> Tensor:
    with net.frozen() as run, torch.no_grad():
        return query.bind(run, x)(x, torch.arange(len(x)))


def error_of(net: Network, query: Query, kind: type[ExtremalError] = ExtremalValueError, x: Tensor = X) -> str:
    with pytest.raises(kind) as error:
        score(net, query, x)
    return str(error.value)


class TestPlanted:
    @pytest.mark.parametrize("bias", [None, -3.0])
    @pytest.mark.parametrize(("text", "other", "place"), [("a bus", "a cat", A), ("a cat", "a bus", B)])
    def test_each_text_has_its_place(self, text: str, other: str, place: Any, bias: float | None) -> None:
        query = Text(text, others=[other])
        result = explain(planted(bias), texture_in(place), query, areas=(AREA,))
        assert overlap(result.binary(AREA)[0, 0], mask_of(place)) >= 0.6
        assert result.verdict[0][0].label == "sufficient"
        assert result.target_names == (f'text "{text}" against "{other}"',)

    def test_the_other_text_is_not_found_there(self) -> None:
        result = explain(planted(), texture_in(A), Text("a cat", others=["a bus"]), areas=(AREA,))
        assert result.verdict[0][0].label != "sufficient"

    def test_why_it_is_the_nearest_of_several_pictures(self) -> None:
        net = planted()
        query = Similarity(texture_in(A), others=torch.cat([texture_in(B), -X]))
        x = texture_in(A)
        result = explain(net, x, query, areas=(AREA,))
        assert overlap(result.binary(AREA)[0, 0], mask_of(A)) >= 0.6
        assert result.verdict[0][0].label == "sufficient"
        e, a, b, c = (F.normalize(net.model(one), dim=1)[0] for one in (x, texture_in(A), texture_in(B), -X))
        assert float(score(net, query, x)) == pytest.approx(float(e @ a - max(e @ b, e @ c)), abs=1e-6)
        assert query.name == "similarity to the reference against others"


class TestLogOdds:
    @pytest.mark.parametrize("is_sigmoid", [False, True])
    def test_it_is_that_of_the_probability(self, is_sigmoid: bool) -> None:
        z = torch.tensor([[1.0, -2.0, 0.5], [3.0, 4.0, -1.0]], dtype=torch.float64)
        p = z[:, 0].sigmoid() * (-z[:, 1:]).sigmoid().prod(1) if is_sigmoid else z.softmax(1)[:, 0]
        torch.testing.assert_close(log_odds(z, is_sigmoid=is_sigmoid), torch.logit(p))
        assert torch.equal(log_odds(z[:, :1], is_sigmoid=is_sigmoid), z[:, 0])

    def test_it_stays_finite(self) -> None:
        z = torch.tensor([[60.0, -60.0], [-60.0, 60.0]], requires_grad=True)
        odds = log_odds(z, is_sigmoid=True)
        (slope,) = torch.autograd.grad(odds.sum(), z)
        assert odds.isfinite().all()
        assert slope.isfinite().all()


def save_pair(kind: str, folder: Path, *, tokenizer: bool = True) -> Any:
    torch.manual_seed(1)
    config = {"text_config": TEXT, "vision_config": VISION}
    if kind in ("CLIPModel", "ChineseCLIPModel"):
        config["projection_dim"] = 6
    model = getattr(t, kind)(getattr(t, kind).config_class(**config)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    t.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    if tokenizer:
        build_tokenizer().save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", ["CLIPModel", "SiglipModel"])
class TestPairs:
    def test_logits_are_the_models_own(self, kind: str, tmp_path: Path) -> None:
        model = save_pair(kind, tmp_path)
        net = zoo.load(f"hf:{tmp_path}")
        x, texts = torch.rand(2, 3, 32, 32), ["a red bus", "a blue cat </s>"]
        is_sigmoid = kind == "SiglipModel"
        padding = {"padding": "max_length", "max_length": 8} if is_sigmoid else {"padding": True}
        made = build_tokenizer()(texts, return_tensors="pt", **padding)
        with torch.no_grad():
            z = model(
                input_ids=made["input_ids"], attention_mask=made["attention_mask"], pixel_values=x
            ).logits_per_image
        found = score(net, Text(texts[0], texts[1:]), x)
        torch.testing.assert_close(found, log_odds(z, is_sigmoid=is_sigmoid), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(score(net, Text(texts[1]), x), z[:, 1], atol=1e-4, rtol=1e-4)
        assert_explains_and_restores(net, x[:1], Text(texts[0], texts[1:]))

    def test_without_a_tokenizer_texts_are_refused(self, kind: str, tmp_path: Path) -> None:
        save_pair(kind, tmp_path, tokenizer=False)
        net = zoo.load(f"hf:{tmp_path}")
        assert error_of(net, Text("a cat"), ExtremalTypeError, torch.rand(1, 3, 32, 32)).endswith(
            "embeds no texts; load one such as CLIP or SigLIP with hf:FOLDER, which must have its tokenizer"
        )


class TestTokens:
    @pytest.fixture(params=["DINOv2", "DINOv3"])
    def net(self, request: pytest.FixtureRequest, tmp_path: Path) -> Network:
        torch.manual_seed(1)
        if request.param == "DINOv2":
            model = t.Dinov2WithRegistersModel(
                t.Dinov2WithRegistersConfig(**VISION, mlp_ratio=2, num_register_tokens=2)
            )
        else:
            model = t.DINOv3ViTModel(t.DINOv3ViTConfig(**VISION, num_register_tokens=2))
        model.eval().save_pretrained(tmp_path)
        t.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
        return zoo.load(f"hf:{tmp_path}")

    def test_cls_mean_and_patch(self, net: Network) -> None:
        x, reference = torch.rand(2, 3, 32, 32), torch.randn(16)
        with torch.no_grad():
            states = net.model.model(x).last_hidden_state  # CLS, two registers, 4 × 4 patches
        pools: dict[Any, Tensor] = {
            "cls": states[:, 0],
            "mean": states[:, 3:].mean(1),
            (1, 2): states[:, 3 + 4 + 2],
            None: states.flatten(1),
        }
        for pool, embedding in pools.items():
            full = reference if pool is not None else torch.randn(19 * 16)
            query = Similarity(full, key="last_hidden_state", pool=pool)
            torch.testing.assert_close(score(net, query, x), F.cosine_similarity(embedding, full[None]))
            assert query.depends_on_position == (pool == (1, 2))
        assert Similarity(reference, pool=(1, 2)).name == (
            "similarity to the reference of the patch at row 1, column 2"
        )
        assert torch.equal(net.model(x), net.model.model(x).pooler_output)  # as before
        query = Similarity(torch.rand(1, 3, 32, 32), pool="mean")
        assert_explains_and_restores(net, x[:1], query)

    def test_what_is_not_there_is_refused(self, net: Network) -> None:
        x, reference = torch.rand(1, 3, 32, 32), torch.randn(16)
        assert error_of(net, Similarity(reference, key="logits"), x=x).endswith(
            "got 'logits'; it has last_hidden_state, pooler_output"
        )
        assert "must lie in the grid of 4 × 4 patches" in error_of(net, Similarity(reference, pool=(4, 0)), x=x)
        flat = Network(nn.Flatten(), name="flat")
        assert "tokens must be pooled from a part (B, T, D) or" in error_of(flat, Similarity(reference, pool="cls"))
        with pytest.raises(ExtremalValueError, match="pool must be cls, mean, or row and column of a patch, got 'max'"):
            Similarity(reference, pool="max")
        with pytest.raises(ExtremalValueError, match="must be read from a layer or from the output"):
            Similarity(reference, "layer", pool="cls")

    def test_maps_of_a_convnet(self, tmp_path: Path) -> None:
        torch.manual_seed(1)
        config = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
        t.ResNetModel(config).eval().save_pretrained(tmp_path)
        t.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
        net, x, reference = zoo.load(f"hf:{tmp_path}"), torch.rand(1, 3, 32, 32), torch.randn(8)
        with torch.no_grad():
            maps = net.model.model(x).last_hidden_state
        for pool, embedding in {"mean": maps.mean((2, 3)), (1, 0): maps[:, :, 1, 0]}.items():
            query = Similarity(reference, pool=pool)  # type: ignore[arg-type]
            torch.testing.assert_close(score(net, query, x), F.cosine_similarity(embedding, reference[None]))
        assert "a CLS token must be there" in error_of(net, Similarity(reference, pool="cls"), x=x)


class TestRefused:
    def test_texts(self) -> None:
        for text in ("", " "):
            with pytest.raises(ExtremalValueError, match="a text must not be empty"):
                Text(text)
        with pytest.raises(ExtremalTypeError, match="others must be a list of texts, got 'a dog'"):
            Text("a cat", others="a dog")
        with pytest.raises(ExtremalValueError, match="others must be other texts, got 'a cat' among them"):
            Text("a cat", others=["a cat"])
        with pytest.raises(ExtremalTypeError, match="a text must be a str, got int"):
            Text(3)  # type: ignore[arg-type]
        assert error_of(planted(), Text("a " * 9)) == (
            f"a text must have at most 8 tokens for planted, got {'a ' * 9!r} of 9; shorten it"
        )
