"""Time limits of requests: they fit what is asked, and end a run in the search for the smallest area, too."""

from pathlib import Path

import pytest

from extremal.app.job_queue import JobProgress, JobQueue, JobState, OnProgress
from extremal.app.networks import ServedNetwork
from extremal.app.request import MAX_TIME_FACTOR, Request
from extremal.app.request_run import run_request
from extremal.explanations.settings import Settings
from support.app_toys import colour_network, save_colour_image
from support.gates import TIMEOUT, final_state


def build_request(
    areas: tuple[float, ...] = (0.12, 0.3), alternatives: int = 1, effort: str = "normal", **options: object
) -> Request:
    """Build a request for one view."""
    settings = Settings(areas=areas, alternatives=alternatives, effort=effort)
    values = {"digest": "d", "title": "cat", "target": 0, "networks": ("toy",), "settings": settings}
    return Request(**{**values, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "factor"),
    [
        (build_request(), 1),
        (build_request(stability=True), 5),
        (build_request(refine=True), 4),
        (build_request(refine=True, effort="thorough"), 8),
        (build_request(effort="thorough"), 2),
        (build_request(alternatives=3), 3),
        (build_request(questions=("preserve", "delete")), 2),
        (build_request(networks=("a", "b"), questions=("preserve", "delete"), stability=True, refine=True), 16),
        (build_request(areas=tuple(0.04 * n for n in range(1, 11))), 2),
        (build_request(layer="features", networks=("a", "b"), stability=True), 2),
    ],
)
def test_the_time_limit_fits_the_request(request_: Request, factor: float) -> None:
    assert request_.time_factor == factor <= MAX_TIME_FACTOR


@pytest.mark.usefixtures("fast_runs")
@pytest.mark.parametrize(
    ("stage", "options"), [("smallest area", {"refine": True}), ("evidence", {"layer": "features"})]
)
def test_a_run_is_cancelled_in_its_last_search(tmp_path: Path, stage: str, options: dict[str, object]) -> None:
    path, networks = save_colour_image(tmp_path / "a.png"), {"toy": ServedNetwork("toy", colour_network())}
    request = build_request(**options)

    def reports_of(n_reports: int | None) -> tuple[list[JobProgress], JobState]:
        reports = list[JobProgress]()

        def work(on_progress: OnProgress) -> None:
            def report(progress: JobProgress) -> None:
                reports.append(progress)
                if n_reports is not None and len(reports) == n_reports:
                    job.cancel()
                on_progress(progress)

            (tmp_path / str(n_reports)).mkdir()
            run_request(request, path, networks, tmp_path / str(n_reports), report)

        with JobQueue(timeout=TIMEOUT) as queue:
            job = queue.submit("anna", work)
            return reports, final_state(job)

    reports, state = reports_of(None)
    assert state is JobState.DONE
    last = max(number for number, progress in enumerate(reports, 1) if progress.stage == stage)
    stopped, state = reports_of(last)
    assert (len(stopped), state) == (last, JobState.CANCELLED)
