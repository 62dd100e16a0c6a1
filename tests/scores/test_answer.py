"""Answers of models of images and text: the planted place is found, for the answer and for its tokens."""

import pytest
import torch

from extremal import Explanation, Network, examine, explain, explain_channels, judge, minimal, plan, smallest_area, zoo
from extremal.errors import ExtremalError, ExtremalTypeError, ExtremalValueError
from extremal.explanations.explain_copies import stability
from extremal.networks.inputs import prepare
from extremal.scores import Answer, PerInput, Query
from extremal.scores.target import settle_query
from support.families import QUICK
from support.toys import Box, overlap
from support.vlm_toys import (
    ANSWER,
    BUS_AT,
    CAT_AT,
    PROMPT,
    SIGNS,
    build_family,
    place_mask,
    planted_network,
    planted_picture,
)

pytestmark = pytest.mark.usefixtures("one_thread")
AREA = float(place_mask(BUS_AT).mean())


def explain_planted(query: Query) -> Explanation:
    return explain(planted_network(), planted_picture(), query, areas=(AREA,))


def score(query: Query, x: torch.Tensor, net: Network | None = None) -> torch.Tensor:
    net = planted_network() if net is None else net
    with net.frozen() as run, torch.no_grad():
        return query.bind(run, x)(x, torch.arange(len(x)))


def error_of(query: Query, kind: type[ExtremalError] = ExtremalValueError, net: Network | None = None) -> str:
    with pytest.raises(kind) as error:
        score(query, prepare(planted_network(), planted_picture()), net)
    return str(error.value)


class TestPlanted:
    @pytest.mark.parametrize(
        ("query", "place"),
        [
            (Answer(ANSWER, PROMPT), BUS_AT),
            (Answer("a blue cat", PROMPT), CAT_AT),
            (Answer("a blue cat", PROMPT, token=2), CAT_AT),
        ],
    )
    def test_the_place_is_found_and_sufficient(self, query: Answer, place: Box) -> None:
        result = explain_planted(query)
        assert overlap(result.binary(AREA)[0, 0], place_mask(place)) >= 0.6
        assert result.verdict[0][0].label == "sufficient"
        assert result.target_names == (query.name,)

    def test_the_models_own_answer_is_told_and_explained(self) -> None:
        result = explain_planted(Answer(prompt=PROMPT))
        assert result.target_names == (f'answer "{ANSWER}" to "{PROMPT}"',)
        assert overlap(result.binary(AREA)[0, 0], place_mask(BUS_AT)) >= 0.6
        assert result.verdict[0][0].label == "sufficient"

    def test_a_place_of_another_answer_is_insufficient(self) -> None:
        net, picture = planted_network(), planted_picture()
        wrong = judge(net, picture, place_mask(CAT_AT)[None, None, None], Answer(ANSWER, PROMPT), areas=(AREA,))
        assert wrong.verdict[0][0].label == "insufficient"
        right = judge(net, picture, place_mask(BUS_AT)[None, None, None], Answer(ANSWER, PROMPT), areas=(AREA,))
        assert right.verdict[0][0].label == "sufficient"

    def test_a_token_that_does_not_need_the_picture_is_refused(self) -> None:
        with pytest.raises(ExtremalValueError, match="a score must change when the input is destroyed"):
            explain_planted(Answer(ANSWER, PROMPT, token=0))

    def test_an_answer_that_the_picture_speaks_against_is_insufficient(self) -> None:
        assert explain_planted(Answer("a red dog", PROMPT, token=2)).verdict[0][0].label != "sufficient"


class TestScore:
    def test_it_is_the_mean_over_the_tokens(self) -> None:
        x = prepare(planted_network(), planted_picture())
        parts = [float(score(Answer(ANSWER, PROMPT, token=k), x)) for k in range(3)]
        assert float(score(Answer(ANSWER, PROMPT), x)) == pytest.approx(sum(parts) / 3, abs=1e-6)
        seen = torch.tanh((x * SIGNS)[(..., *BUS_AT)].mean())
        by_hand = 8 * seen - torch.logsumexp(torch.cat([8 * seen[None], torch.zeros(79)]), 0)
        assert parts[2] == pytest.approx(float(by_hand), abs=1e-5)

    def test_a_batch_may_ask_for_several_tokens_and_answers(self) -> None:
        net, x = planted_network(), prepare(planted_network(), planted_picture())
        queries = [Answer(ANSWER, PROMPT, token=2), Answer("a blue cat", PROMPT)]
        each = [float(score(query, x)) for query in queries]
        assert score(PerInput(queries), x.expand(2, -1, -1, -1)).tolist() == pytest.approx(each, abs=1e-6)
        result = explain(net, planted_picture(), queries, areas=(AREA,))
        for found, place in zip(result.binary(AREA), (BUS_AT, CAT_AT), strict=True):
            assert overlap(found[0], place_mask(place)) >= 0.6

    def test_each_picture_has_its_own_answer(self) -> None:
        net, x = planted_network(), prepare(planted_network(), planted_picture())
        pictures = torch.cat([x, -x])  # "bus" is the least probable word for the second
        settled = settle_query(Answer(prompt=PROMPT), net, pictures)
        assert isinstance(settled, PerInput)
        texts = [query.text for query in settled.queries if isinstance(query, Answer)]
        assert texts[0] == ANSWER
        assert texts[1] is not None
        assert not texts[1].startswith(ANSWER)
        torch.testing.assert_close(score(Answer(prompt=PROMPT), pictures, net), score(settled, pictures, net))

    def test_own_tokens_are_kept_whatever_their_text_splits_into(self) -> None:
        query = settle_query(Answer(prompt=PROMPT), planted_network(), prepare(planted_network(), planted_picture()))
        assert isinstance(query, Answer)
        assert query.ids == planted_network().inputs.find_answer(PROMPT, ANSWER)  # type: ignore[union-attr]


class TestOtherFunctions:
    """What follows an explanation asks the same question."""

    def test_smallest_area_minimal_region_and_stability(self) -> None:
        net, query = planted_network(), Answer(prompt=PROMPT)
        result = explain(net, planted_picture(), query, areas=(AREA, 0.3), solver="path")
        (certificate,) = smallest_area(net, result, query)
        assert certificate is not None
        assert AREA / 2 < certificate.area < 1.3 * AREA, "nine tenths of the effect need no more than the part"
        (region,) = minimal(net, result, target=query, budget=100)
        assert region is not None
        assert overlap(region.mask[0] > 0, place_mask(BUS_AT)) > 0.5
        measured = stability(net, planted_picture(), result, copies=1, target=query)
        assert float(measured.ious[0, 0, 0]) > 0.8

    def test_channels_of_a_layer(self) -> None:
        net = zoo.wrap_vision_language(*build_family("LLaVA"))
        layer = "model.model.vision_tower.encoder.layers.0"
        query = Answer(ANSWER, PROMPT)
        found = explain_channels(net, planted_picture(), layer, query, axis=2, counts=(8,), solver="path")
        assert found.masks.shape[2:] == (32,)
        x = prepare(net, planted_picture())
        assert float(found.score_full[0]) == pytest.approx(float(score(query, x, net)), abs=1e-4)

    def test_plan_and_doctor_tell_prompt_answer_tokens_and_picture(self) -> None:
        planned = plan(planted_network(), planted_picture(), Answer(prompt=PROMPT), areas=(AREA,))
        told = planned.reading.sentences[1]
        assert "3 tokens of the answer (a | red | bus) after 26 of the prompt" in told
        assert f"'{PROMPT}' and the picture of 56 × 56 px" in told
        assert planned.inputs[0].name == f'answer "{ANSWER}" to "{PROMPT}"'
        assert planned.memory > 0
        findings = examine(planted_network(), planted_picture(), Answer(ANSWER, PROMPT))
        assert findings.ok, findings.issues
        assert findings.reading is not None
        assert findings.reading.sentences[1] == told


class TestRefused:
    def test_texts(self) -> None:
        for text in ("", "  "):
            with pytest.raises(ExtremalValueError, match="an answer must have tokens, got an empty text"):
                Answer(text, PROMPT)
        with pytest.raises(ExtremalTypeError, match="a prompt must be a text, got int"):
            Answer(ANSWER, 3)  # type: ignore[arg-type]
        assert error_of(Answer("a green bus", PROMPT)) == (
            "an answer must consist of tokens that the model knows, planted reads 'a green bus' as a | <unk> | bus; "
            "write it in other words"
        )

    def test_tokens(self) -> None:
        assert error_of(Answer(ANSWER, PROMPT, token=3)) == (
            "token must lie in 0..2 for the answer a | red | bus, got 3"
        )
        with pytest.raises(ExtremalValueError, match="token must be at least 0, got -1"):
            Answer(ANSWER, PROMPT, token=-1)
        with pytest.raises(ExtremalTypeError, match="token must be the index"):
            Answer(ANSWER, PROMPT, token="bus")  # type: ignore[arg-type]

    def test_a_missing_prompt(self) -> None:
        assert error_of(Answer(ANSWER)) == (
            "a prompt must be given for planted, whose template is that of a conversation; e.g. prompt='What is in the "
            "picture?'"
        )

    def test_a_prompt_that_breaks_the_place_of_the_picture(self) -> None:
        message = error_of(Answer(ANSWER, "<image> <image> ?"))
        assert message.startswith("a prompt must be one that the processor takes with a picture, that of planted")

    def test_a_network_without_prompts(self) -> None:
        classes = Network(torch.nn.Flatten(), name="classes")
        assert error_of(Answer(ANSWER, PROMPT), ExtremalTypeError, classes) == (
            "an answer must be asked of a model of images and text, classes takes no prompt; load one with hf:FOLDER, "
            "or wrap it with zoo.wrap_vision_language"
        )

    def test_a_model_that_says_nothing(self) -> None:
        net = planted_network()
        net.model.model.config.eos_token_id = list(range(80))
        assert error_of(Answer(prompt=PROMPT), net=net).startswith(
            "an answer must have tokens, planted answers nothing to the prompt; "
        )


def test_without_a_template_the_prompt_may_be_empty() -> None:
    net = zoo.wrap_vision_language(*build_family("PaliGemma"))
    result = explain(net, planted_picture(), Answer(ANSWER), areas=(0.2,), solver=QUICK)
    assert result.target_names == (f'answer "{ANSWER}"',)
