"""`explain_tokens`: the regions that an answer of a model of images and text needs, as a whole and token by token."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Unpack

from torch import nn

from extremal.errors import ExtremalTypeError, ExtremalValueError, NoEffectError
from extremal.explanations.explain import explain
from extremal.explanations.explanation import Explanation
from extremal.explanations.sets.bundle import Bundle, prepare_single
from extremal.explanations.sets.region_sets import JudgedRegion, judge_smallest
from extremal.explanations.settings import Settings, SettingsOptions, merge_settings
from extremal.explanations.stages import OnStage, report_stages
from extremal.explanations.verdict import SUFFICIENT_EFFECT
from extremal.networks.inputs import ImagesLike
from extremal.networks.network import Network
from extremal.networks.resolve import as_network
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import validate_callbacks
from extremal.scores.answer import Answer
from extremal.tensor_files import FormatError


@dataclass(frozen=True, eq=False)
class AnswerTokens(Bundle):
    """The region that an answer about one picture needs, and that of each token that depends on the picture."""

    noun: ClassVar[str] = "the tokens of an answer"
    parts: ClassVar[tuple[str, ...]] = ("whole", "each")

    whole: Explanation  # of the mean over all tokens
    each: Explanation  # one row per token that depends on the picture
    answer: str
    prompt: str
    texts: tuple[str, ...]  # (T,) of the tokens
    dependent: tuple[int, ...]  # indices of the tokens in `each`, rising

    def smallest(self, token: int | None = None, share: float = SUFFICIENT_EFFECT) -> JudgedRegion | None:
        """Return the smallest computed region with the verdict `sufficient`, or else with this share of the effect.

        None if no cut mask has this share, or if the token does not depend on the picture.

        Args:
            token: index of a token; None: of the whole answer.
            share: of the whole effect.

        Raises:
            ExtremalValueError: there is no such token.
        """
        if token is None:
            return judge_smallest(self.whole, share)
        if not 0 <= token < len(self.texts):
            raise ExtremalValueError(f"token must lie in 0..{len(self.texts) - 1}, got {token}")
        if token not in self.dependent:
            return None
        return judge_smallest(self.each, share, self.dependent.index(token))

    @classmethod
    def _read_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        texts, dependent = (tuple(values[name]) for name in ("texts", "dependent"))
        return {**values, "texts": texts, "dependent": dependent}

    def _check(self) -> None:
        rows = len(self.each.inputs)
        is_rising = list(self.dependent) == sorted(set(self.dependent))
        if not all(isinstance(text, str) for text in (self.answer, self.prompt, *self.texts)):
            raise FormatError("answer, prompt and tokens must be texts")
        if len(self.dependent) != rows or not is_rising or not set(self.dependent) <= set(range(len(self.texts))):
            raise FormatError("its explanations must be of its tokens")
        if self.whole.areas != self.each.areas or self.whole.inputs.shape[1:] != self.each.inputs.shape[1:]:
            raise FormatError("its parts must be of one input and the same areas")
        if len(self.whole.inputs) != 1:
            raise FormatError("its answer must be about one input")


@in_standard_modes
def explain_tokens(
    network: Network | nn.Module | str,
    image: ImagesLike,
    answer: Answer,
    *,
    settings: Settings | None = None,
    on_part: OnStage | None = None,
    **options: Unpack[SettingsOptions],
) -> AnswerTokens:
    """Explain an answer of a model of images and text, and each of its tokens that depends on the picture.

    Runs `explain` once for the answer and once for each token: an answer of T tokens costs up to T + 1 times as much as
    the answer alone. Tokens whose probability is the same without the picture (articles, the second half of a word)
    have no region and are not in `dependent`.

    Args:
        network, image, settings: as for `explain`, of one image.
        answer: a `scores.Answer` without a token; if it has no text, the model's own answer is explained.
        on_part: called with the part and stage, the number done, and the total.
        options: as for `explain`, without `alternatives`.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    validate_callbacks(on_part=on_part)
    settings = validate_token_settings(answer, settings, options)
    net, x = prepare_single(as_network(network), image, "the tokens of an answer")
    settled = answer.settle_one(net, x)
    texts = settled.list_tokens(net)
    whole = explain(net, x, settled, settings=settings, progress=False, **report_stages(on_part, "answer"))
    found: dict[int, Explanation] = {}
    for index, (name, query) in enumerate(list_token_queries(settled, texts).items()):
        report = report_stages(on_part, name)
        try:
            found[index] = explain(net, x, query, settings=settings, progress=False, **report)
        except NoEffectError:
            continue  # its probability is the same without the picture
    if not found:
        raise NoEffectError(
            f"a token must depend on the picture, none of {' | '.join(texts)} does; ask for another answer or prompt"
        )
    each = Explanation.concatenate(list(found.values()))
    return AnswerTokens(whole, each, settled.text or "", settled.prompt, tuple(texts), tuple(found))


def validate_token_settings(answer: Answer, settings: Settings | None, options: SettingsOptions) -> Settings:
    """Return the given settings, or those of the options, for one region of each token of an answer.

    Raises:
        ExtremalTypeError: several explanations are asked for, or the answer is none, or one of its tokens.
    """
    merged = merge_settings(settings, options)
    if merged.alternatives != 1:
        raise ExtremalTypeError(
            f"tokens have one region each, got alternatives={merged.alternatives}; leave it out, or use explain"
        )
    if not isinstance(answer, Answer) or answer.token is not None:
        raise ExtremalTypeError(f"answer must be a scores.Answer without a token, got {answer!r}; leave the token out")
    return merged


def list_token_queries(answer: Answer, texts: Sequence[str]) -> dict[str, Answer]:
    """Return the query about each token of an answer, by its text and its number."""
    return {f"{text} ({index + 1} of {len(texts)})": replace(answer, token=index) for index, text in enumerate(texts)}
