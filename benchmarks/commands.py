"""Every command of the README and the guide, run as it is written.

Use: python benchmarks/commands.py [PAGE...] [--again] [--list]

A page's commands run one after another as a new reader would type them, in a fresh copy of the checkout with this
environment as its .venv, whose programs come first in PATH. Nothing can be downloaded, so what would download has to be
listed in NOT_RUN, as all else that cannot run here. One JSON line a command goes to results/commands.jsonl; a page is
run again where one of its commands failed, or where they or the package have changed since. Exit code 1: one failed.
"""

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import records

ROOT = Path(__file__).parent.parent
RESULTS = records.FOLDER / "commands.jsonl"
SHELLS = ("console", "bash", "sh")  # fences whose lines are commands
TIMEOUT = 1200  # s

WEIGHTS = "downloads weights"
VOC = "needs VOC 2007, and a network tuned to it"
TABLE = "extremal bench pointing --data voc:VOCdevkit --network voc:vgg16 --weights vgg16-voc.pt --out runs/voc-vgg16"
NOT_RUN = {
    "make test": "runs all tests, which takes many minutes",
    "extremal explain cat.png --network torchvision:resnet50": WEIGHTS,
    "extremal explain cat.png --network torchvision:fasterrcnn_resnet50_fpn --ask box --target cat": WEIGHTS,
    "extremal explain cat.png --network torchvision:deeplabv3_resnet50 --ask segment --target cat": WEIGHTS,
    "extremal bench pointing --data scenes:/usr/share/tuxpaint/stamps --methods grad-cam,rise,path --out runs/scenes": (
        "needs Debian's tuxpaint-stamps-default, and an hour"
    ),
    TABLE: VOC,
    f"{TABLE} --methods "
    "centre,gradient,deconvnet,guided-backprop,excitation,contrastive-excitation,rise,grad-cam,penalty,path": VOC,
}
KINDS = (  # likewise, whatever follows
    (re.compile(r"(python -m )?pip install\b"), "installs"),
    (re.compile(r"extremal app\b"), "serves until it is stopped"),
)


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page."""

    language: str  # as it stands after the backticks
    body: str


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    page: str  # its path below the checkout
    text: str  # on one line, without comments

    @property
    def reason(self) -> str | None:
        """Why it is not run; None where it is."""
        return NOT_RUN.get(self.text) or next((reason for kind, reason in KINDS if kind.match(self.text)), None)


def pages() -> dict[str, str]:
    """What is read, by its path below the checkout."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def fences(text: str) -> list[Fence]:
    """The fenced blocks of a page, in order.

    >>> fences("Do\\n```sh\\nls\\n```\\n")
    [Fence(language='sh', body='ls\\n')]
    """
    found = re.findall(r"^( *)(`{3,})([^`\n]*)\n(.*?)^\1\2 *$", text, re.MULTILINE | re.DOTALL)
    return [Fence(language.strip(), body) for _, _, language, body in found]


def lines(body: str) -> list[str]:
    """The commands of a block: continuation lines joined, comments cut, runs of spaces one.

    Where some lines begin with a prompt `$ `, the others are what is printed.

    >>> lines("ls   *.png  # all\\ncp a \\\\\\n    b\\n\\n# no more")
    ['ls *.png', 'cp a b']
    """
    told = [line.strip() for line in re.sub(r"\\\n", " ", body).splitlines()]
    asked = [line[2:] for line in told if line.startswith("$ ")]
    return [text for text in map(_bare, asked or told) if text]


def _bare(line: str) -> str:
    """A line without its comment; quoted text as it is."""
    parts = r"""('[^']*'|"[^"]*"|\\.)|((?:^|\s+)#.*)|\s+"""
    return re.sub(parts, lambda part: part[1] or ("" if part[2] else " "), line).strip()


def commands(page: str, text: str) -> list[Command]:
    """What a page tells to type."""
    return [Command(page, line) for fence in fences(text) if fence.language in SHELLS for line in lines(fence.body)]


def stale(found: Iterable[Command]) -> list[str]:
    """What NOT_RUN lists and no page has."""
    texts = {command.text for command in found}
    return [text for text in NOT_RUN if text not in texts]


def digest(found: list[Command]) -> str:
    """A short name of a page's commands and of the package: rows of others do not stand for them."""
    told = hashlib.sha256("\n".join(command.text for command in found).encode())
    for path in sorted(path for name in ("src", "examples") for path in (ROOT / name).rglob("*.*")):
        if path.is_file() and path.suffix != ".pyc":
            told.update(path.read_bytes())
    return told.hexdigest()[:8]


def checkout(folder: Path) -> None:
    """A fresh copy of the checkout, in which make finds its environment ready: this one."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != ".ready":
            (folder / ".venv" / entry.name).symlink_to(entry)
    (folder / ".venv" / ".ready").touch()  # newer than all that it is made of


def surroundings(folder: Path, caches: Path) -> dict[str, str]:
    """The environment of a new reader who is not connected: no weights that were fetched before, and none to be had."""
    path = os.pathsep.join([str(folder / ".venv" / "bin"), os.environ.get("PATH", "")])
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    empty = {"TORCH_HOME": str(caches / "torch"), "HF_HOME": str(caches / "hf")}
    return {**os.environ, **nowhere, **empty, "PATH": path}


def run(found: list[Command], settings: str, results: Path) -> Iterator[int]:
    """Type a page's commands in a fresh checkout; each exit code as it is known."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as caches:
        checkout(Path(folder))
        env = surroundings(Path(folder), Path(caches))
        for command in found:
            if command.reason:
                print(f"  not run: {command.reason}: {command.text}", flush=True)
                continue
            begin = time.perf_counter()
            code, told = typed(command.text, Path(folder), env)
            seconds = round(time.perf_counter() - begin, 1)
            print(f"  {code:3d} {seconds:6.1f} s  {command.text}", flush=True)
            if code:
                print("\n".join(f"      {line}" for line in told.splitlines()[-20:]), flush=True)
            row = {"page": command.page, "command": command.text, "code": code, "seconds": seconds}
            records.append(results, {**row, "settings": settings})
            yield code


def typed(text: str, folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """Exit code of one command, and what it told."""
    with subprocess.Popen(
        ["bash", "-c", text],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that what it starts ends with it
    ) as process:
        try:
            told, _ = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return 124, f"stopped after {TIMEOUT} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, told.decode(errors="replace")


def standing(found: list[Command], settings: str, rows: list[dict[str, object]]) -> bool:
    """Whether all of a page's commands ran already as they are, and ended well the last time."""
    last = {row["command"]: row["code"] for row in rows if (row["page"], row["settings"]) == (found[0].page, settings)}
    return all(last.get(command.text) == 0 for command in found if not command.reason)


def main() -> int:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*")
    parser.add_argument("--again", action="store_true", help="also what ran already")
    parser.add_argument("--list", action="store_true", help="only tell what would run")
    options = parser.parse_args()
    every = {page: commands(page, text) for page, text in pages().items()}
    if unknown := set(options.pages) - set(every):
        raise SystemExit(f"pages must be of {', '.join(every)}, got {', '.join(sorted(unknown))}")
    if old := stale(command for found in every.values() for command in found):
        raise SystemExit("\n".join(["listed in NOT_RUN, and on no page:", *old]))
    failed = 0
    for page, found in every.items():
        if not found or (options.pages and page not in options.pages):
            continue
        print(page, flush=True)
        settings = digest(found)
        if options.list:
            print("\n".join(f"  {one.text}" + (f"  not run: {one.reason}" if one.reason else "") for one in found))
        elif not options.again and standing(found, settings, records.read(RESULTS)):
            print("  as before", flush=True)
        else:
            failed += sum(code != 0 for code in run(found, settings, RESULTS))
    print(f"{failed} failed" if failed else "none failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
