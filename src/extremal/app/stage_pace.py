"""The time that a stage of a job still takes."""

from dataclasses import replace

from extremal.app.job_queue import JobProgress


class StagePace:
    """Estimates the time that a stage still takes, by its steps so far.

    >>> pace = StagePace()
    >>> [pace.estimate(JobProgress("descent", done, 10), 2.0 * done).seconds_left for done in (2, 3, 7)]
    [None, 14.0, 6.0]
    """

    def __init__(self) -> None:
        self._stage, self._first, self._start = "", 0, 0.0

    def estimate(self, progress: JobProgress, now: float) -> JobProgress:
        """Return the progress with the seconds left, once the stage has made a step.

        Args:
            progress: of a job.
            now: s, of a clock that never goes back.
        """
        if progress.stage != self._stage:
            self._stage, self._first, self._start = progress.stage, progress.done, now
        steps = progress.done - self._first
        if steps <= 0 or not progress.total:
            return progress
        return replace(progress, seconds_left=(now - self._start) / steps * (progress.total - progress.done))
