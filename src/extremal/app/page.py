"""The page: what a person chooses, and where they are shown what came of it."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from extremal.app import views
from extremal.app.events import GAMES, REGIONS, Events, classes
from extremal.app.job_queue import Line
from extremal.app.networks import Offered
from extremal.app.result_cache import Shelf
from extremal.app.upload_field import photograph_field
from extremal.explanations.settings import AREAS
from extremal.masking.perturbations import PERTURBATIONS

TITLE = "What did the network need?"
INTRODUCTION = (
    "Drop a photograph. You see the smallest part of it that the network's answer needs, "
    "how much of the score that part keeps, and how much random parts of the same size keep."
)
EXAMPLES = ("cat", "coffee", "rocket", "astronaut")


def page(offered: dict[str, Offered], line: Line, shelf: Shelf) -> gr.Blocks:
    """The page with its events.

    Args:
        offered: the networks by name; the first is chosen at the beginning.
        line: of jobs.
        shelf: of answers.
    """
    events = Events(offered, line, shelf)
    title = f"extremal – {TITLE}"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as blocks:
        gr.Markdown(f"# {TITLE}\n{INTRODUCTION}", elem_classes="extremal-head")
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300):
                choices = _choices(offered, events)
                with gr.Row():
                    start = gr.Button("Explain", variant="primary", elem_id="explain", min_width=100)
                    stop = gr.Button("Cancel", elem_id="cancel", min_width=100)
                more = _more(offered)
            with gr.Column(scale=3, min_width=300):
                status = gr.HTML(views.told("Nothing is asked yet."), elem_id="status")
                results = gr.HTML("", elem_id="results")
        photo, network, target, other, game = choices
        layer, rival, *_ = more
        for changed in (photo.change, network.change):
            _at_once(changed, events.look, [photo, network], [target, other, status, results])
        _at_once(network.change, events.offers, [network], [other, layer, rival])
        _at_once(other.input, events.named, [other, network], [target])
        _at_once(start.click, events.explain, [photo, network, target, game, *more], [status, results])
        _at_once(stop.click, events.cancel, [], [])
        blocks.unload(events.left)
    found: gr.Blocks = blocks
    return found


def _choices(offered: dict[str, Offered], events: Events) -> tuple[Any, ...]:
    """What everybody chooses: photograph, network, class, any other class, question."""
    names = list(offered)
    photo = photograph_field("Photograph", height=240, elem_id="photo")
    gr.Examples(
        [[str(_example(name))] for name in EXAMPLES], photo, label="Or take one of these", example_labels=list(EXAMPLES)
    )
    network = gr.Dropdown(names, value=names[0], label="Network", visible=len(names) > 1, elem_id="network")
    target = gr.Radio([], label="Class", info="The five most probable come with the photograph.", elem_id="target")
    other = gr.Dropdown(
        classes(offered[names[0]]),
        value=None,
        label="Any other class",
        info="Type a part of its name.",
        elem_id="other",
    )
    game = gr.Radio(list(GAMES), value=next(iter(GAMES)), label="Question", elem_id="game")
    return photo, network, target, other, game


def _more(offered: dict[str, Offered]) -> tuple[Any, ...]:
    """What some choose: a layer, another network, areas, the perturbation, how many answers, how exactly."""
    first, *others = offered
    known = [REGIONS, *offered[first].layers]
    shares = ", ".join(f"{area:g}" for area in AREAS)
    with gr.Accordion("More", open=False, elem_id="more"):
        return (
            gr.Dropdown(known, value=REGIONS, label="Regions, or channels of a layer", elem_id="layer"),
            gr.Dropdown(others, value=None, label="Compare with", visible=bool(others), elem_id="rival"),
            gr.Textbox(shares, label="Areas", info="Shares of the photograph, in (0, 1).", elem_id="areas"),
            gr.Dropdown(list(PERTURBATIONS), value="blur", label="What takes the place of the rest", elem_id="instead"),
            gr.Slider(1, 3, 1, step=1, label="Answers to look for", elem_id="answers"),
            gr.Checkbox(False, label="Look for the smallest area between these, to 2\u00a0%", elem_id="refine"),
        )


def _at_once(event: Any, call: Any, given: list[Any], shown: list[Any]) -> Dependency:
    """The event calls this without waiting for others: whoever has to wait stands in our own line."""
    found: Dependency = event(
        call, given, shown, concurrency_limit=None, show_progress="hidden", api_visibility="private"
    )
    return found


def _example(name: str) -> Path:
    return Path(str(files("extremal.app") / "photographs" / f"{name}.jpg"))
