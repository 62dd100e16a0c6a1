"""Networks from archives of `torch.export.save`: the same numbers as the module that was exported."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from extremal import zoo
from extremal.errors import ExtremalValueError
from extremal.networks.zoo.pt2.archive import DTYPES
from support.archives import export, small_network
from support.families import assert_explains_and_restores, noise_image

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return export(small_network(), tmp_path / "net.pt2")


class TestTheSameNumbers:
    @pytest.mark.parametrize("rows", [1, 2, 3, 5])
    @pytest.mark.parametrize("batch", ["one", "two", "any", "at most two"])
    def test_any_batch_size(self, batch: str, rows: int, tmp_path: Path) -> None:
        sizes = {"any": {0: torch.export.Dim("B")}, "at most two": {0: torch.export.Dim("B", max=2)}}
        module, shape = small_network(), (1 if batch == "one" else 2, 3, 16, 16)
        dynamic = {"sizes": sizes[batch]} if batch in sizes else {}
        net = zoo.load(f"file:{export(module, tmp_path / 'net.pt2', shape, **dynamic)}")
        x = torch.rand(rows, 3, 16, 16, requires_grad=True)
        output, expected = net.model(x), module(x)
        torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-5)
        (gradient,) = torch.autograd.grad((output * torch.arange(3.0)).sum(), x)
        torch.testing.assert_close(gradient, torch.autograd.grad((expected * torch.arange(3.0)).sum(), x)[0])
        assert gradient.abs().sum() > 0

    def test_exactly_and_in_float64_of_any_size(self, tmp_path: Path) -> None:
        module = small_network().double()
        dims = {0: torch.export.Dim("B"), 2: torch.export.Dim("H", min=4), 3: torch.export.Dim("W", min=4)}
        program = torch.export.export(module, (torch.rand(2, 3, 16, 12).double(),), dynamic_shapes=(dims,))
        torch.export.save(program, tmp_path / "net.pt2")
        net = zoo.load(f"file:{tmp_path / 'net.pt2'}")
        x = torch.rand(3, 3, 11, 20).double()
        assert torch.equal(net.model(x), module(x))
        assert net.prepare(Image.new("RGB", (30, 20))).shape == (1, 3, 20, 30)

    def test_outputs_in_their_structure(self, tmp_path: Path) -> None:
        class Several(nn.Module):
            def forward(self, x: Tensor) -> Any:
                return {"logits": x.mean((2, 3)), "parts": [x + 1, (x.sum(), 7)]}

        net = zoo.load(f"file:{export(Several(), tmp_path / 'net.pt2', (1, 3, 4, 4))}")
        x = torch.rand(3, 3, 4, 4)
        output = net.model(x)
        assert list(output) == ["logits", "parts"]
        torch.testing.assert_close(output["logits"], x.mean((2, 3)))
        assert torch.equal(output["parts"][0], x + 1)
        assert output["parts"][1][1] == 7
        with net.frozen() as run:
            assert run(x).shape == (3, 3)

    @pytest.mark.slow
    def test_the_embedded_network(self, tmp_path: Path) -> None:
        own = zoo.load("embedded")
        batch = {"sizes": {0: torch.export.Dim("B")}}
        net = zoo.load(f"file:{export(own.model, tmp_path / 'net.pt2', (2, 3, 224, 224), **batch)}")
        x = own.prepare(noise_image(224)).expand(2, -1, -1, -1)
        with torch.no_grad():
            assert torch.equal(net.model(x), own.model(x))

    def test_its_types_are_those_of_torch(self) -> None:
        from torch._export.serde.serialize import _TORCH_TO_SERIALIZE_DTYPE as numbers

        assert all(int(numbers[dtype]) == number for number, dtype in DTYPES.items())

    def test_half_and_bfloat16(self, tmp_path: Path) -> None:
        for dtype in (torch.float16, torch.bfloat16):
            module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).to(dtype)
            torch.export.save(torch.export.export(module, (torch.rand(2, 3, 2, 2).to(dtype),)), tmp_path / "net.pt2")
            net = zoo.load(f"file:{tmp_path / 'net.pt2'}")
            x = torch.rand(2, 3, 2, 2).to(dtype)
            assert torch.equal(net.model(x), module(x))


class TestAsANetwork:
    def test_it_is_explained_and_restored(self, path: Path) -> None:
        net = zoo.load(f"file:{path}")
        assert (net.name, net.mirror, net.model.training, list(net.labels)) == (f"file:{path}", False, False, [])
        net.model.train()  # an exported module of torch's own refuses
        assert_explains_and_restores(net, noise_image(16))
        assert net.model.training

    def test_images_are_cropped_and_resized(self, path: Path) -> None:
        net = zoo.load(f"file:{path}")
        picture = Image.new("RGB", (64, 32), (255, 0, 0))
        picture.paste((0, 255, 0), (16, 0, 48, 32))  # the middle square
        x = net.prepare(picture)
        assert x.shape == (1, 3, 16, 16)
        inner = x[0, :, 2:-2, 2:-2]  # the border is mixed by resampling
        assert torch.equal(inner, torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1).expand_as(inner))
        assert np.array_equal(net.to_images_or_empty(net.prepare(noise_image(16)))[0], np.array(noise_image(16)))

    def test_greyscale_and_oblong_sizes(self, tmp_path: Path) -> None:
        module = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))
        net = zoo.load(f"file:{export(module, tmp_path / 'net.pt2', (1, 1, 4, 8))}")
        x = net.prepare(Image.new("RGB", (20, 20), (100, 100, 100)))
        torch.testing.assert_close(x, torch.full((1, 1, 4, 8), 100 / 255))

    def test_another_size(self, path: Path) -> None:
        with pytest.raises(ExtremalValueError) as error:
            zoo.load(f"file:{path}").model(torch.rand(1, 3, 20, 16))
        assert str(error.value) == (
            f"file:{path} takes inputs (N, 3, 16, 16), got (1, 3, 20, 16); resize the input, or export the network "
            "with dynamic shapes"
        )

    def test_its_weights_differ_from_others_by_their_hash(self, path: Path, tmp_path: Path) -> None:
        first = zoo.load(f"file:{path}").weight_hash()
        assert zoo.load(f"file:{path}").weight_hash() == first
        module = small_network()
        module.scale[0] = 4.0
        assert zoo.load(f"file:{export(module, tmp_path / 'other.pt2')}").weight_hash() != first
