"""Seconds from a click on Explain to the first answer of the app, and to the careful one that replaces it.

Use: python benchmarks/app_time.py [--images 6]

The app runs in a process of its own with its own network. A client does over HTTP what the page does: it uploads a
crop of one of the app's photographs, and asks about the class that the page proposes, with all fields as they are.
The first image includes the first use of the network; medians are of the others. Prints each image, and appends the
medians to benchmarks/results/app_time.jsonl; docs/performance.md quotes the latest.
"""

import argparse
import asyncio
import json
import statistics
import sys
from pathlib import Path
from time import perf_counter

import httpx

import records
from extremal.app.events import FIRST_ANSWER
from timing import machine

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.app_client import Visitor, serve_app
from support.app_load import TIMEOUT, unique_image

RESULTS = records.FOLDER / "app_time.jsonl"


async def time_answers(address: str, number: int) -> tuple[float, float]:
    """Return the seconds until the first and the careful answer about one image."""
    async with httpx.AsyncClient(base_url=address, timeout=TIMEOUT) as client:
        visitor = Visitor(client)
        await visitor.open()
        async with visitor.connected():
            photo = await visitor.upload(unique_image(number))
            proposed = [message async for message in visitor.call("on_photo", [photo, visitor.network])][-1]
            begin, first, last = perf_counter(), 0.0, ""
            target = proposed["output"]["data"][0]["value"]
            async for message in visitor.explain(photo=photo, target=target):
                last = json.dumps(message)
                if not first and FIRST_ANSWER in last:
                    first = perf_counter() - begin
            if not first or "report.html" not in last:
                raise RuntimeError(f"the app did not answer twice: {last[:500]}")
            return first, perf_counter() - begin


def main() -> None:
    """Measure all images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6)
    options = parser.parse_args()
    answers = []
    with serve_app() as (address, _):
        for number in range(options.images):
            answers.append(asyncio.run(time_answers(address, number)))
            print(
                f"image {number}: first answer {answers[-1][0]:.2f} s, careful one {answers[-1][1]:.2f} s", flush=True
            )
    first, careful = (statistics.median(values) for values in zip(*answers[1:], strict=True))
    print(f"medians without the first image: {first:.2f} s and {careful:.2f} s")
    row = {"first": first, "careful": careful, "all": answers, "machine": machine()}
    records.append(RESULTS, row)


def lines() -> list[str]:
    """Return the section for docs/performance.md."""
    text = ["## The app", ""]
    rows = records.read(RESULTS)
    if not rows:
        return [*text, "Not measured yet: `python benchmarks/app_time.py`.", ""]
    row = rows[-1]
    return [
        *text,
        f"From the click on Explain to the first answer {row['first']:.1f} s, and to the careful one that replaces it "
        f"{row['careful']:.1f} s",
        f"(medians of {len(row['all']) - 1} crops of photographs, all options at their defaults; {row['machine']}, "
        f"{row['day']}).",
        "",
    ]


if __name__ == "__main__":
    main()
