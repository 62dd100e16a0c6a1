"""The page: photograph and options on the left, answers on the right."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from extremal.app import answer_views
from extremal.app.answer_events import AnswerEvents
from extremal.app.answers import add_example
from extremal.app.call_check import Events as PageEvents
from extremal.app.call_check import InputKind
from extremal.app.choices import REGIONS
from extremal.app.events import QUESTION_CHOICES, Events
from extremal.app.form_values import MAX_ALTERNATIVES
from extremal.app.job_queue import JobQueue
from extremal.app.networks import ServedNetwork
from extremal.app.page_head import TITLE
from extremal.app.result_cache import ResultCache
from extremal.app.sessions import GradioSessions
from extremal.app.upload_field import input_field
from extremal.explanations.effort import EFFORTS, NORMAL
from extremal.explanations.settings import AREAS
from extremal.masking.perturbations import PERTURBATIONS

HEADING = "What did the network need?"
INTRODUCTION = (
    "Drop a {noun}. You see the smallest part of it that the network's answer needs, "
    "how much of the score that part keeps, and how much random parts of the same size keep."
)
EXAMPLES = ("tripod", "coffee")  # each has a sufficient region at the default settings
# Values that only scripts know, read when an event is sent: part of the address, or what was chosen in a list.
READ_ADDRESS = "() => [window.location.hash]"
READ_CHOSEN = "() => [window.extremalChosen ?? '']"
READ_CLASS = "(name, network) => [document.querySelector('#other input')?.value ?? name, network]"


def build_page(
    networks: dict[str, ServedNetwork], queue: JobQueue, previews: JobQueue, cache: ResultCache
) -> gr.Blocks:
    """Build the page with its event handlers.

    Args:
        networks: served networks by name; the first one is selected initially.
        queue: runs the requests.
        previews: classifies images.
        cache: holds the responses.
    """
    blocks: gr.Blocks
    events = Events(networks, queue, previews, cache, lambda session: GradioSessions(blocks).count_unread(session))
    kind = next(iter(networks.values())).kind
    answers, noun = AnswerEvents(events), kind or "photograph"
    example = None if kind else add_example(cache)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as blocks:
        introduction = f"{INTRODUCTION.format(noun=noun)} {_name_network(networks)}"
        gr.Markdown(f"# {HEADING}\n{introduction}", elem_classes="extremal-head")
        with gr.Row(equal_height=False, elem_id="columns"):
            with gr.Column(scale=1, min_width=300, elem_id="form"):
                photo, network, target, other_class, prompt, answer, question = _build_main_options(networks)
                with gr.Row(elem_classes="extremal-actions"):
                    start = gr.Button("Explain", variant="primary", elem_id="explain", min_width=100)
                    stop = gr.Button("Cancel", elem_id="cancel", min_width=100)
                layer, second_network, *advanced = _build_advanced_options(networks)
                saved = gr.UploadButton("Open a saved answer", file_types=[".safetensors"], elem_id="saved")
            with gr.Column(scale=3, min_width=300, elem_id="answer"):
                history = _html("", "history")
                status = _html(answer_views.render_example_summary(example) if example else "", "status")
                results = _html(answer_views.render_results(example) if example else "", "results")
        chosen, show = gr.Textbox(visible="hidden"), gr.Button(visible="hidden", elem_id="show")
        for changed in (photo.change, network.change):
            _bind(changed, events.on_photo, [photo, network], [target, other_class, status, results])
        _bind(network.change, events.on_network, [network], [other_class, layer, second_network])
        _bind(other_class.submit, events.on_class, [other_class, network], [target], js=READ_CLASS)
        options = [photo, network, target, prompt, answer, question, layer, second_network, *advanced]
        explained = _bind(start.click, events.on_explain, options, [status, results])
        opened = _bind(saved.upload, answers.on_open, [saved], [status, results])
        for done in (explained, opened):
            _bind(done.then, answers.on_history, [], [history])
        _bind(show.click, answers.on_show, [chosen], [status, results], js=READ_CHOSEN)
        _bind(blocks.load, answers.on_load, [chosen], [status, results, history], js=READ_ADDRESS)
        _bind(stop.click, events.on_cancel, [], [])
        blocks.unload(events.on_unload)
    blocks.api_open = False  # events that have a queue are called by it only
    return blocks


def _html(value: str, elem_id: str) -> gr.HTML:
    """Build a part of the page that has styles of its own only."""
    return gr.HTML(value, apply_default_css=False, elem_id=elem_id)


def find_input_kinds(page: gr.Blocks) -> PageEvents:
    """Return the kinds of the values of each event, by its number."""

    def find_kind(field: Any) -> InputKind:
        if isinstance(field, gr.Dataset):
            return len(EXAMPLES)
        return "file" if isinstance(field, gr.Image | gr.File | gr.UploadButton) else "value"

    return {number: tuple(map(find_kind, event.inputs)) for number, event in page.fns.items()}


def _name_network(networks: dict[str, ServedNetwork]) -> str:
    """Return a sentence that names the network, if there is only one; otherwise a field does."""
    (name, *others) = networks
    return "" if others else f"The network is `{name}`."


def _build_main_options(networks: dict[str, ServedNetwork]) -> tuple[Any, ...]:
    """Build the fields for image, network, class, any other class, prompt, answer, and question."""
    names = list(networks)
    kind = networks[names[0]].kind
    noun = kind or "image"
    photo = input_field(kind, height=200, elem_id="photo")
    _html('<div id="notice" role="alert"></div>', "notices")
    if not kind:
        examples = [[str(example_photograph(name))] for name in EXAMPLES]
        gr.Examples(examples, photo, label="Or choose an example", example_labels=list(EXAMPLES), elem_id="examples")
    network = gr.Dropdown(names, value=names[0], label="Network", visible=len(names) > 1, elem_id="network")
    asks_classes = not networks[names[0]].takes_prompt  # a model of images and text is served alone
    info = f"The five most probable classes of the {noun}."
    target = gr.Radio([], label="Class", info=info, visible=asks_classes, elem_id="target")
    other_class = gr.Textbox(
        label="Any other class",
        info="Type part of its name.",
        placeholder="Search classes",
        max_lines=1,
        visible=asks_classes,
        elem_id="other",
    )
    prompt = gr.Textbox(
        label="Prompt", placeholder="What is in the picture?", max_lines=3, visible=not asks_classes, elem_id="prompt"
    )
    answer = gr.Textbox(
        label="Answer",
        info="Leave empty for the model's own answer.",
        max_lines=3,
        visible=not asks_classes,
        elem_id="said",
    )
    question = gr.Radio(
        list(QUESTION_CHOICES), value=next(iter(QUESTION_CHOICES)), label="Question", elem_id="question"
    )
    return photo, network, target, other_class, prompt, answer, question


def _build_advanced_options(networks: dict[str, ServedNetwork]) -> tuple[Any, ...]:
    """Build the fields for layer, second network, areas, perturbation, effort, alternatives, and further searches."""
    _, *others = networks
    kind = next(iter(networks.values())).kind
    noun = kind or "image"
    areas = ", ".join(f"{area:g}" for area in AREAS)
    with gr.Accordion("More", open=False, elem_id="more"):
        return (
            gr.Textbox(
                REGIONS, label="Regions, or channels of a layer", max_lines=1, visible=not kind, elem_id="layer"
            ),
            gr.Dropdown(others, value=None, label="Compare with", visible=bool(others), elem_id="rival"),
            gr.Textbox(areas, label="Areas", info=f"Shares of the {noun}, in (0, 1).", elem_id="areas"),
            gr.Dropdown(list(PERTURBATIONS), value="mixed", label="Replace the rest with", elem_id="instead"),
            gr.Radio(
                list(EFFORTS),
                value=NORMAL,
                label="Effort",
                info="Fast is a preview from few passes of the network; thorough takes twice as long as normal.",
                elem_id="effort",
            ),
            gr.Slider(1, MAX_ALTERNATIVES, 1, step=1, label="Alternatives", elem_id="answers"),
            gr.Checkbox(False, label="Search for the smallest sufficient area, to 2\u00a0%", elem_id="refine"),
            gr.Checkbox(
                False,
                label="Also explain 4 copies with one grey level of noise, to see what stays (takes 5 times as long)",
                elem_id="stability",
            ),
        )


def _bind(event: Any, handler: Any, inputs: list[Any], outputs: list[Any], js: str | None = None) -> Dependency:
    """Bind an event to a handler that gradio calls at once: requests wait in the app's own queue.

    A script, if there is one, reads the inputs from the page.

    Values are passed on unchanged, and checked by the handler: gradio logs a traceback for each that is not offered.
    """
    dependency: Dependency = event(
        handler,
        inputs,
        outputs,
        concurrency_limit=None,
        show_progress="hidden",
        api_visibility="private",
        preprocess=False,
        js=js,
    )
    return dependency


def example_photograph(name: str) -> Path:
    """Return the path of the photograph of an example."""
    return Path(str(files("extremal.app") / "photographs" / f"{name}.jpg"))
