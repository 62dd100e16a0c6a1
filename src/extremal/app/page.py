"""The page: inputs, options, and the area of the results."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from extremal.app import views
from extremal.app.call_check import Events as PageEvents
from extremal.app.call_check import InputKind
from extremal.app.events import GAME_CHOICES, MAX_ALTERNATIVES, REGIONS, Events, class_choices
from extremal.app.job_queue import JobQueue
from extremal.app.networks import ServedNetwork
from extremal.app.result_cache import ResultCache
from extremal.app.sessions import GradioSessions
from extremal.app.upload_field import image_field
from extremal.explanations.settings import AREAS
from extremal.masking.perturbations import PERTURBATIONS

TITLE = "What did the network need?"
INTRODUCTION = (
    "Drop an image. You see the smallest part of it that the network's answer needs, "
    "how much of the score that part keeps, and how much random parts of the same size keep."
)
EXAMPLES = ("tripod", "coffee", "cat", "rocket")


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
    title = f"extremal – {TITLE}"
    blocks: gr.Blocks
    events = Events(networks, queue, previews, cache, lambda session: GradioSessions(blocks).count_unread(session))
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as blocks:
        gr.Markdown(f"# {TITLE}\n{INTRODUCTION} {_name_network(networks)}", elem_classes="extremal-head")
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300):
                photo, network, target, other_class, game = _build_main_options(networks)
                with gr.Row(elem_classes="extremal-actions"):
                    start = gr.Button("Explain", variant="primary", elem_id="explain", min_width=100)
                    stop = gr.Button("Cancel", elem_id="cancel", min_width=100)
                layer, second_network, *advanced = _build_advanced_options(networks)
            with gr.Column(scale=3, min_width=300):
                status = gr.HTML(views.render_message("No image has been chosen yet."), elem_id="status")
                results = gr.HTML("", elem_id="results")
        for changed in (photo.change, network.change):
            _bind(changed, events.on_photo, [photo, network], [target, other_class, status, results])
        _bind(network.change, events.on_network, [network], [other_class, layer, second_network])
        _bind(other_class.input, events.on_class, [other_class, network], [target])
        options = [photo, network, target, game, layer, second_network, *advanced]
        _bind(start.click, events.on_explain, options, [status, results])
        _bind(stop.click, events.on_cancel, [], [])
        blocks.unload(events.on_unload)
    blocks.api_open = False  # events that have a queue are called by it only
    return blocks


def find_input_kinds(page: gr.Blocks) -> PageEvents:
    """Return the kinds of the values of each event, by its number."""

    def find_kind(field: Any) -> InputKind:
        if isinstance(field, gr.Dataset):
            return len(EXAMPLES)
        return "file" if isinstance(field, gr.Image) else "value"

    return {number: tuple(map(find_kind, event.inputs)) for number, event in page.fns.items()}


def _name_network(networks: dict[str, ServedNetwork]) -> str:
    """Return a sentence that names the network, if there is only one; otherwise a field does."""
    (name, *others) = networks
    return "" if others else f"The network is `{name}`."


def _build_main_options(networks: dict[str, ServedNetwork]) -> tuple[Any, ...]:
    """Build the fields for image, network, class, any other class, and game."""
    names = list(networks)
    photo = image_field("Image", height=240, elem_id="photo")
    examples = [[str(_example_path(name))] for name in EXAMPLES]
    gr.Examples(examples, photo, label="Or choose an example", example_labels=list(EXAMPLES))
    network = gr.Dropdown(names, value=names[0], label="Network", visible=len(names) > 1, elem_id="network")
    target = gr.Radio([], label="Class", info="The five most probable classes of the image.", elem_id="target")
    other_class = gr.Dropdown(
        class_choices(networks[names[0]]),
        value=None,
        label="Any other class",
        info="Type a part of its name.",
        elem_id="other",
    )
    game = gr.Radio(list(GAME_CHOICES), value=next(iter(GAME_CHOICES)), label="Question", elem_id="game")
    return photo, network, target, other_class, game


def _build_advanced_options(networks: dict[str, ServedNetwork]) -> tuple[Any, ...]:
    """Build the fields for layer, second network, areas, perturbation, alternatives, refinement, and stability."""
    first, *others = networks
    layers = [REGIONS, *networks[first].layers]
    areas = ", ".join(f"{area:g}" for area in AREAS)
    with gr.Accordion("More", open=False, elem_id="more"):
        return (
            gr.Dropdown(layers, value=REGIONS, label="Regions, or channels of a layer", elem_id="layer"),
            gr.Dropdown(others, value=None, label="Compare with", visible=bool(others), elem_id="rival"),
            gr.Textbox(areas, label="Areas", info="Shares of the image, in (0, 1).", elem_id="areas"),
            gr.Dropdown(list(PERTURBATIONS), value="mixed", label="Replace the rest by", elem_id="instead"),
            gr.Slider(1, MAX_ALTERNATIVES, 1, step=1, label="Alternatives", elem_id="answers"),
            gr.Checkbox(False, label="Search for the smallest area between these, to 2\u00a0%", elem_id="refine"),
            gr.Checkbox(
                False,
                label="Also explain 4 copies with one grey level of noise, to see what stays (5 times as long)",
                elem_id="stability",
            ),
        )


def _bind(event: Any, handler: Any, inputs: list[Any], outputs: list[Any]) -> Dependency:
    """Bind an event to a handler that gradio calls at once: requests wait in the app's own queue.

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
    )
    return dependency


def _example_path(name: str) -> Path:
    return Path(str(files("extremal.app") / "photographs" / f"{name}.jpg"))
