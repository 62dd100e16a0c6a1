"""Run every command of the README and the guide as it is written.

Use: python benchmarks/commands.py [PAGE...] [--again] [--list]

The commands of a page run one after another as a new reader would type them, in a fresh copy of the checkout with this
environment as its .venv, whose programs come first in PATH. Downloads are blocked, so commands that download must be
listed in NOT_RUN, like all others that cannot run here. Appends one JSON line per command to results/commands.jsonl; a
page runs again if one of its commands failed, or if they or the package have changed since. Exit code 1: one failed.
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
SHELLS = ("console", "bash", "sh")  # languages of fences whose lines are commands
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
SKIPPED_PATTERNS = (  # not run either, with any arguments
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
        """The reason why it is not run; None if it is."""
        return NOT_RUN.get(self.text) or next(
            (reason for pattern, reason in SKIPPED_PATTERNS if pattern.match(self.text)), None
        )


def pages() -> dict[str, str]:
    """Return the text of each page, by its path below the checkout."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def fences(text: str) -> list[Fence]:
    r"""Return the fenced blocks of a page, in order.

    >>> fences("Do\n```sh\nls\n```\n")
    [Fence(language='sh', body='ls\n')]
    """
    blocks = re.findall(r"^( *)(`{3,})([^`\n]*)\n(.*?)^\1\2 *$", text, re.MULTILINE | re.DOTALL)
    return [Fence(language.strip(), body) for _, _, language, body in blocks]


def lines(body: str) -> list[str]:
    r"""Return the commands of a block, with continuation lines joined, and without comments and repeated spaces.

    If some lines begin with a prompt `$ `, the others are output.

    >>> lines("ls   *.png  # all\ncp a \\\n    b\n\n# end")
    ['ls *.png', 'cp a b']
    """
    stripped = [line.strip() for line in re.sub(r"\\\n", " ", body).splitlines()]
    prompted = [line[2:] for line in stripped if line.startswith("$ ")]
    return [text for text in map(_strip_comment, prompted or stripped) if text]


def _strip_comment(line: str) -> str:
    """Return a line without its comment; quoted text is unchanged."""
    parts = r"""('[^']*'|"[^"]*"|\\.)|((?:^|\s+)#.*)|\s+"""
    return re.sub(parts, lambda part: part[1] or ("" if part[2] else " "), line).strip()


def commands(page: str, text: str) -> list[Command]:
    """Return the commands of a page."""
    return [Command(page, line) for fence in fences(text) if fence.language in SHELLS for line in lines(fence.body)]


def stale(page_commands: Iterable[Command]) -> list[str]:
    """Return the commands in NOT_RUN that no page contains."""
    texts = {command.text for command in page_commands}
    return [text for text in NOT_RUN if text not in texts]


def digest(page_commands: list[Command]) -> str:
    """Return a short hash of a page's commands and of the package, by which their rows are recognised."""
    content = hashlib.sha256("\n".join(command.text for command in page_commands).encode())
    for path in sorted(path for name in ("src", "examples") for path in (ROOT / name).rglob("*.*")):
        if path.is_file() and path.suffix != ".pyc":
            content.update(path.read_bytes())
    return content.hexdigest()[:8]


def copy_checkout(folder: Path) -> None:
    """Copy the checkout; make finds its environment ready there, namely this one."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != ".ready":
            (folder / ".venv" / entry.name).symlink_to(entry)
    (folder / ".venv" / ".ready").touch()  # newer than its prerequisites


def build_environment(folder: Path, caches: Path) -> dict[str, str]:
    """Return the environment of a new reader without a connection and without cached weights."""
    path = os.pathsep.join([str(folder / ".venv" / "bin"), os.environ.get("PATH", "")])
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    caches_env = {"TORCH_HOME": str(caches / "torch"), "HF_HOME": str(caches / "hf")}
    return {**os.environ, **proxies, **caches_env, "PATH": path}


def run(page_commands: list[Command], settings: str, results: Path) -> Iterator[int]:
    """Run a page's commands in a fresh checkout, and yield each exit code."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as caches:
        copy_checkout(Path(folder))
        env = build_environment(Path(folder), Path(caches))
        for command in page_commands:
            if command.reason:
                print(f"  not run: {command.reason}: {command.text}", flush=True)
                continue
            start = time.perf_counter()
            code, output = run_command(command.text, Path(folder), env)
            seconds = round(time.perf_counter() - start, 1)
            print(f"  {code:3d} {seconds:6.1f} s  {command.text}", flush=True)
            if code:
                print("\n".join(f"      {line}" for line in output.splitlines()[-20:]), flush=True)
            row = {"page": command.page, "command": command.text, "code": code, "seconds": seconds}
            records.append(results, {**row, "settings": settings})
            yield code


def run_command(text: str, folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """Return the exit code and the output of a command."""
    with subprocess.Popen(
        ["bash", "-c", text],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # its child processes end with it
    ) as process:
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return 124, f"stopped after {TIMEOUT} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output.decode(errors="replace")


def is_current(page_commands: list[Command], settings: str, rows: list[dict[str, object]]) -> bool:
    """Return whether all of a page's commands have run unchanged, and succeeded the last time."""
    last = {
        row["command"]: row["code"]
        for row in rows
        if (row["page"], row["settings"]) == (page_commands[0].page, settings)
    }
    return all(last.get(command.text) == 0 for command in page_commands if not command.reason)


def main() -> int:
    """Run the commands that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*")
    parser.add_argument("--again", action="store_true", help="run recorded commands as well")
    parser.add_argument("--list", action="store_true", help="only list the commands")
    options = parser.parse_args()
    by_page = {page: commands(page, text) for page, text in pages().items()}
    if unknown := set(options.pages) - set(by_page):
        raise SystemExit(f"pages must be of {', '.join(by_page)}, got {', '.join(sorted(unknown))}")
    if old := stale(command for page_commands in by_page.values() for command in page_commands):
        raise SystemExit("\n".join(["listed in NOT_RUN, and on no page:", *old]))
    failed = 0
    for page, page_commands in by_page.items():
        if not page_commands or (options.pages and page not in options.pages):
            continue
        print(page, flush=True)
        settings = digest(page_commands)
        if options.list:
            print(
                "\n".join(
                    f"  {command.text}" + (f"  not run: {command.reason}" if command.reason else "")
                    for command in page_commands
                )
            )
        elif not options.again and is_current(page_commands, settings, records.read(RESULTS)):
            print("  as before", flush=True)
        else:
            failed += sum(code != 0 for code in run(page_commands, settings, RESULTS))
    print(f"{failed} failed" if failed else "none failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
