"""The probability of an explained class, where the score states it: whether it is the network's answer at all."""

import math

from extremal.explanations.explanation import Explanation

MIN_PROBABILITY = 0.05  # of a class, below which it has little, and is not the answer unless it is the likeliest one


def find_probability(explanation: Explanation, image: int = 0) -> float | None:
    """Return the probability of the explained class for the whole input; None if the score does not state it.

    The scores probability and log-probability state it, and sigmoid, the log-odds of a label.

    Args:
        explanation: of N inputs.
        image: index of the input.
    """
    if explanation.target[image] is None:
        return None
    score = float(explanation.score_full[image])
    match explanation.settings.get("score"):
        case "probability":
            found = score
        case "log-probability" | "log_probability":
            found = math.exp(min(score, 0.0))
        case "sigmoid":
            found = 1 / (1 + math.exp(-score)) if abs(score) < 700 else float(score > 0)
        case _:
            return None
    return found if 0 <= found <= 1 else None


def is_unlikely(explanation: Explanation, image: int = 0) -> bool:
    """Return whether the explained class has so little probability that it may not be the network's answer."""
    probability = find_probability(explanation, image)
    return probability is not None and probability < MIN_PROBABILITY
