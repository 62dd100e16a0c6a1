"""An answer of three tokens made by hand: the first does not depend on the picture."""

from typing import Any

from extremal import AnswerTokens
from support import synthetic


def answer_tokens(answer: str = "a red bus", last: str = "bus", **options: Any) -> AnswerTokens:
    """Return the regions of an answer whose scores are not below zero as those of a model, but rise with the area."""
    whole, each = synthetic.explanation(**options), synthetic.explanation(count=2, seed=1, **options)
    return AnswerTokens(whole, each, answer, "What is it?", ("a", "red", last), (1, 2))
