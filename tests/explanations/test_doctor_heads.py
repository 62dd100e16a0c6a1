"""The doctor recognises what kind of scores a network returns, and names the score that suits them."""

import torch

from extremal import Network
from extremal.explanations.preflight.doctor import Finding, Level, examine
from support.faulty import Faulty, X

OK, WARNING = Level.OK, Level.WARNING


class TestHeads:
    """What the outputs look like, and which score suits them."""

    def found(self, after: object, **options: object) -> Finding:
        findings = examine(Faulty(after=after), X, **options)  # type: ignore[arg-type]
        assert all(one.name == "raw outputs" for one in findings.issues)
        return next(one for one in findings.findings if one.name == "raw outputs")

    def test_logits(self) -> None:
        assert self.found(lambda out, x: out).measured == "outputs look like logits"

    def test_one_output(self) -> None:
        finding = self.found(lambda out, x: out[:, :1] / 10)
        assert (finding.level, finding.measured) == (
            OK,
            "one output, 0.482, which is read as log-odds of one class (a sigmoid): 62 %",
        )

    def test_one_output_that_says_no(self) -> None:
        finding = self.found(lambda out, x: out[:, :1] - 7)
        assert finding == Finding(
            *("raw outputs", WARNING),
            "one output, -2.18, which is read as log-odds of one class (a sigmoid): 10 %, so the network says no, and "
            "masks keep what speaks for yes",
            "choose the score negative to explain the no",
        )

    def test_independent_labels(self) -> None:
        labels = lambda out, x: torch.cat([out, out / 2, out], 1) - 6  # noqa: E731
        finding = self.found(labels, target=0)
        assert finding == Finding(
            *("raw outputs", WARNING),
            "outputs look like logits of independent labels (sigmoids), which the score compares with each other",
            "choose the score sigmoid: the log-odds of one label alone",
        )
        assert self.found(labels, target=0, score="sigmoid").level is OK

    def test_labels_after_a_sigmoid(self) -> None:
        finding = self.found(lambda out, x: (torch.cat([out, out / 2, out], 1) - 2).sigmoid(), target=0)
        assert (finding.level, finding.remedy) == (
            WARNING,
            "remove the sigmoid at the end of the network, and choose the score sigmoid",
        )

    def test_masked_classes(self) -> None:
        masked = lambda out, x: torch.cat([out, torch.full_like(out[:, :1], -torch.inf)], 1)  # noqa: E731
        assert self.found(masked).measured == "outputs look like logits"

    def test_the_reading(self) -> None:
        findings = examine(Network(Faulty(), labels=("cat", "dog")), X)
        assert findings.reading is not None
        assert findings.reading.sentences == (
            "input (1, 3, 24, 24): batch on axis 0, channels on axis 1; values -1 to 1; torch.float32 on cpu",
            "output (1, 2): classes on axis 1; 2 labels; logits",
        )
        maps = examine(Faulty(after=lambda out, x: {"out": out[:, :, None, None].expand(-1, -1, 2, 3)}), X)
        assert maps.reading is not None
        assert maps.reading.sentences[1] == (
            "output 'out' (1, 2, 2, 3): classes on axis 1, means over 2 × 3 places; no labels; logits"
        )
        other = examine(Faulty(after=lambda out, x: (out, [out])), X, lambda output: output[0][:, 0])
        assert other.reading is not None
        assert other.reading.sentences[1] == "output tuple of (1, 2), list of (1, 2)"
