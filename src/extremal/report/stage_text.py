"""The stages of a run in words, the same on the command line and in the app."""

STAGE_WORDS = {
    "start": "looking for a start",
    "sweep": "searching",
    "polish": "refining",
    "screening": "searching",
    "descent": "searching",
    "refinement": "refining",
    "choice": "choosing the best",
    "repair": "searching again",
    "evidence": "testing what was found",
    "smallest area": "searching for the smallest area",
    "writing": "writing the report",
}
