"""Query about an answer of a model of images and text: the log-probability of its tokens."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import shorten
from extremal.networks.class_scores import TOKEN_LOGITS
from extremal.networks.network import Network
from extremal.networks.run import Evaluator
from extremal.networks.vision_language import AskedText, PromptedInputs
from extremal.number_checks import format_value, is_whole
from extremal.scores.query import BoundQuery, PerInput, Query, as_split

MAX_ANSWER_TOKENS = 32  # of a model's own answer
MAX_NAME_TEXT = 80  # characters of prompt and answer in a name


@dataclass(frozen=True, eq=False)
class Answer:
    """The mean log-probability of an answer's tokens, given the picture and a prompt: (1/T)·Σ_t log p(a_t | a_<t).

    For models of images and text of transformers (`hf:` names, or `zoo.wrap_vision_language`). Masks act on the picture
    before the model's image processor; the prompt and the answer stay unchanged. To explain a single token, pass
    `token`; to explain several, a list of queries.

    >>> Answer("a red bus", prompt="What is in the picture?").name
    'answer "a red bus" to "What is in the picture?"'

    Args:
        text: of the answer; None: the model's own, with the most probable token at each step, until it ends or has 32
            tokens; each token costs one evaluation.
        prompt: the user's question, put into the model's chat template if it has one; a prompt with the model's image
            token is used verbatim. Only models without a template work without a prompt.
        token: index of one of the answer's tokens, whose log-probability is the score; None: the mean over all.
        ids: the answer's tokens, if they are known already; () means those of the text.
    """

    text: str | None = None
    prompt: str = ""
    token: int | None = None
    ids: tuple[int, ...] = field(default=(), repr=False)

    layer, depends_on_position = "", False

    def __post_init__(self) -> None:
        for noun, text in (("an answer", self.text or ""), ("a prompt", self.prompt)):
            if not isinstance(text, str):
                raise ExtremalTypeError(f"{noun} must be a text, got {type(text).__name__}; e.g. 'a red bus'")
        if self.text is not None and not self.text.strip():
            raise ExtremalValueError(
                "an answer must have tokens, got an empty text; leave the text out for the model's own answer"
            )
        token = self.token
        if token is not None and not is_whole(token):
            raise ExtremalTypeError(
                f"token must be the index of one of the answer's tokens, got {format_value(token)}; e.g. 0"
            )
        if token is not None and token < 0:
            raise ExtremalValueError(f"token must be at least 0, got {format_value(token)}; the first token is 0")

    @property
    def name(self) -> str:
        """The answer, the token and the prompt."""
        answer = "the model's own answer" if self.text is None else f'answer "{shorten(self.text, MAX_NAME_TEXT)}"'
        token = "" if self.token is None else f"token {self.token} of "
        return f"{token}{answer}" + (f' to "{shorten(self.prompt, MAX_NAME_TEXT)}"' if self.prompt else "")

    def asking(self, network: Network) -> AbstractContextManager[None]:
        """Return a context in which the network gets the prompt and the answer as further inputs."""
        inputs = self._find_inputs(network)
        return inputs.asked(AskedText(self.prompt, self._find_ids(inputs)))

    def settle(self, network: Network, x: Tensor) -> Query:
        """Return the query about inputs x (N, 3, H, W) with a text: its own, or for each input the model's answer."""
        if self.text is not None:
            return self
        with network.frozen() as run:
            return self._generate_each(run, x)

    def settle_one(self, network: Network, x: Tensor) -> "Answer":
        """Return the query about a single input x (1, 3, H, W) with the text of the answer."""
        settled = self.settle(network, x)
        assert isinstance(settled, Answer)  # one input has one answer
        return settled

    def list_tokens(self, network: Network) -> list[str]:
        """Return the text of each token of the answer, which must be known."""
        inputs = self._find_inputs(network)
        return inputs.list_tokens(self._find_ids(inputs))

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind the answer to a network and pictures, whose pixels are compared with those of the processor."""
        inputs, split = self._find_inputs(run.network), as_split(run)
        if self.text is None:
            answer = self._generate_each(run, x) if split is None else self._generate_each(split.run, split.x)
            return answer.bind(run, x)
        ids = self._find_ids(inputs)
        asked, columns = AskedText(self.prompt, ids), torch.tensor(ids, device=x.device)
        if split is None:
            inputs.steps.check(x)
        elif inputs.current != asked:
            raise ExtremalValueError(
                "the channels of a model of images and text must be explained for one answer at a time, got several; "
                "pass one target, with the text of its answer"
            )

        def score_inputs(rows: Tensor, input_index: Tensor) -> Tensor:
            with inputs.asked(asked):
                logits = _read_token_logits(run.evaluate(rows, input_index), run.network)
            chances = logits[:, -len(ids) - 1 : -1].log_softmax(2)  # (B, T, tokens), of each token given those before
            scores = chances.gather(2, columns.expand(len(rows), -1).unsqueeze(2))[..., 0]  # (B, T)
            return scores.mean(1) if self.token is None else scores[:, self.token]

        return score_inputs

    def _generate_each(self, run: Evaluator, x: Tensor) -> Query:
        answers = [self._generate(run, x[n : n + 1], n) for n in range(len(x))]
        return answers[0] if all(answer.ids == answers[0].ids for answer in answers) else PerInput(answers)

    @torch.no_grad()
    def _generate(self, run: Evaluator, x: Tensor, n: int) -> "Answer":
        """Return the query about the model's own answer to the picture x (1, 3, H, W), of index n."""
        inputs, ids = self._find_inputs(run.network), list[int]()
        while len(ids) < MAX_ANSWER_TOKENS:
            with inputs.asked(AskedText(self.prompt, tuple(ids))):
                index = torch.tensor([n], device=x.device)
                logits = _read_token_logits(run.evaluate(x, index), run.network)
            following = int(logits[0, -1].argmax())
            if following in inputs.end_ids:
                break
            ids.append(following)
        text = inputs.tokenizer.decode(ids, skip_special_tokens=True).strip()
        if not text:
            raise ExtremalValueError(
                f"an answer must have tokens, {run.network.name} answers nothing to the prompt; pass the text of an "
                "answer, or another prompt"
            )
        answer = replace(self, text=text, ids=tuple(ids))
        answer._find_ids(inputs)
        return answer

    def _find_ids(self, inputs: PromptedInputs) -> tuple[int, ...]:
        """Return the tokens of the answer; none if it is the model's own and not known yet."""
        if self.text is None:
            return ()
        ids = self.ids or inputs.find_answer(self.prompt, self.text)
        if self.token is not None and self.token >= len(ids):
            raise ExtremalValueError(
                f"token must lie in 0..{len(ids) - 1} for the answer {' | '.join(inputs.list_tokens(ids))}, got "
                f"{format_value(self.token)}"
            )
        return ids

    def _find_inputs(self, network: Network) -> PromptedInputs:
        """Return the inputs of a model of images and text, which must have a prompt if they need one."""
        inputs = network.inputs
        if not isinstance(inputs, PromptedInputs):
            raise ExtremalTypeError(
                f"an answer must be asked of a model of images and text, {network.name} takes no prompt; load one with "
                "hf:FOLDER, or wrap it with zoo.wrap_vision_language"
            )
        if inputs.needs_prompt and not self.prompt.strip():
            raise ExtremalValueError(
                f"a prompt must be given for {network.name}, whose template is that of a conversation; e.g. "
                "prompt='What is in the picture?'"
            )
        return inputs


def _read_token_logits(output: object, network: Network) -> Tensor:
    """Return the logits of tokens (B, T, tokens) in an output."""
    logits = output[TOKEN_LOGITS] if isinstance(output, dict) and TOKEN_LOGITS in output else None
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        raise ExtremalTypeError(
            f"a model of images and text must return logits (B, T, tokens), {network.name} returned a "
            f"{type(output).__name__}; wrap the model"
        )
    return logits
