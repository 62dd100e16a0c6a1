"""Query about a class among all classes but another one."""

from dataclasses import dataclass

from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.networks.outputs import read_logits
from extremal.networks.run import Evaluator
from extremal.scores.query import BoundQuery, class_index, class_label


@dataclass(frozen=True, eq=False)
class ClassWithout:
    """The log-odds of a class against all classes but one: y_c − log Σ exp y_k over k other than c and that one.

    It asks what supports a class, regardless of its rival. Without a third class it is the logit y_c.

    >>> import torch
    >>> from extremal import Network
    >>> x = torch.tensor([[[2.0, 0.5, 1.0]]])
    >>> with Network(torch.nn.Flatten(), labels=("cat", "dog", "car")).frozen() as run:
    ...     ClassWithout("cat", "dog").bind(run, x)(x, torch.tensor([0]))
    tensor([1.])

    Args:
        label: the class, by index or name.
        without: the class that is left out, by index or name.
    """

    label: int | str
    without: int | str

    layer, depends_on_position = "", False

    @property
    def name(self) -> str:
        """Both classes."""
        return f"{class_label(self.label)}, {class_label(self.without)} left out"

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind the score to a network; class names are looked up once."""
        net = run.network
        label, without = class_index(net, self.label), class_index(net, self.without)
        if label == without:
            raise ExtremalValueError(f"without must be another class, got {net.label(without)} twice; name another one")

        def score_inputs(inputs: Tensor, input_index: Tensor) -> Tensor:
            output = read_logits(run.evaluate(inputs, input_index), net.name, net.labels, len(inputs))
            class_index(net, max(label, without), output.shape[1])
            others = [index for index in range(output.shape[1]) if index not in (label, without)]
            if not others:
                return output[:, label]
            return output[:, label] - output[:, others].logsumexp(1)

        return score_inputs
