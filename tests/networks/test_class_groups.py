"""Named groups of classes, and the ranges of ImageNet-1k that they stand for."""

import pytest
from torch import nn
from torchvision.models import ResNet50_Weights

from extremal import Network, zoo
from extremal.networks.class_groups import IMAGENET_GROUPS, describe_group, find_named_groups
from extremal.networks.imagenet import find_imagenet_labels

TORCHVISION_LABELS = tuple(ResNet50_Weights.DEFAULT.meta["categories"])
SIZES = {"dog": 118, "bird": 59, "cat": 5, "snake": 17, "fish": 16, "insect": 27, "lizard": 11, "monkey": 13}


@pytest.mark.parametrize(
    "labels", [TORCHVISION_LABELS, find_imagenet_labels(1000)], ids=["torchvision", "with synonyms"]
)
def test_all_groups_are_found_in_labels_of_imagenet(labels: tuple[str, ...]) -> None:
    groups = find_named_groups(labels)
    assert set(groups) == set(IMAGENET_GROUPS)
    assert {name: len(groups[name]) for name in SIZES} == SIZES  # numbers of ImageNet's classes below WordNet's nouns


def test_members_are_what_the_name_says_and_neighbours_are_not() -> None:
    groups = find_named_groups(TORCHVISION_LABELS)

    def names(group: str) -> list[str]:
        return [TORCHVISION_LABELS[index] for index in groups[group]]

    assert names("cat") == ["tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"]
    assert names("fox") == ["red fox", "kit fox", "Arctic fox", "grey fox"]
    assert names("turtle") == ["loggerhead", "leatherback turtle", "mud turtle", "terrapin", "box turtle"]
    assert names("shark") == ["great white shark", "tiger shark", "hammerhead"]
    assert {"beagle", "Border collie", "pug", "standard poodle"} <= set(names("dog"))
    edges = {
        name: [(part.first - 1, part.last + 1) for part in IMAGENET_GROUPS[name]] for name in ("dog", "cat", "bird")
    }
    neighbours = {name: [TORCHVISION_LABELS[i] for pair in pairs for i in pair] for name, pairs in edges.items()}
    assert neighbours == {
        "dog": ["sea lion", "timber wolf"],
        "cat": ["grey fox", "cougar"],
        "bird": ["stingray", "European fire salamander", "centipede", "tusker", "isopod", "grey whale"],
    }


def test_labels_in_another_order_or_number_have_no_groups() -> None:
    assert find_named_groups(TORCHVISION_LABELS[::-1]) == {}
    assert find_named_groups(TORCHVISION_LABELS[:-1]) == {}
    assert find_named_groups(("background", *TORCHVISION_LABELS)) == {}
    swapped = list(TORCHVISION_LABELS)
    swapped[268], swapped[269] = swapped[269], swapped[268]
    assert set(IMAGENET_GROUPS) - set(find_named_groups(swapped)) == {"dog"}


def test_no_name_of_a_group_is_that_of_a_class() -> None:
    names = {part.strip().lower() for label in find_imagenet_labels(1000) for part in label.split(",")}
    assert not names & set(IMAGENET_GROUPS)


def test_a_network_has_the_groups_of_its_labels_and_its_own() -> None:
    net = Network(nn.Flatten(), labels=TORCHVISION_LABELS, groups={"pets": (151, 281), "cat": (281, 282)})
    assert net.named_groups["fox"] == (277, 278, 279, 280)
    assert (net.named_groups["pets"], net.named_groups["cat"]) == ((151, 281), (281, 282))
    assert net.label((281, 282)) == "cat (2 classes)"
    assert Network(nn.Flatten(), labels=("cat", "dog")).named_groups == {}
    assert zoo.load("embedded").label((281, 282, 283, 284, 285)) == "cat (5 classes)"


def test_a_group_without_a_name_is_described_by_its_classes() -> None:
    labels = tuple("abcdef")
    assert describe_group((1, 3), labels, {}) == "b | d"
    assert describe_group((0, 1, 2, 3, 4), labels, {"others": (0, 1)}) == "a | b | c | … (5 classes)"
    assert describe_group((4, 9), (), {}) == "class 4 | class 9"
