"""Find out quickly whether a host answers, and keep downloads from waiting for one that does not."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from ssl import SSLError
from typing import Any
from urllib.parse import urlparse

MAX_ANSWER_SECONDS = 3.0  # for the first answer of a host
MAX_PROBE_SECONDS = 4.0  # with the search for its address, which has no limit of its own


def is_reachable(url: str) -> bool:
    """Return whether the host of an address answers within seconds; any answer counts, also an error.

    Proxies of the environment are used. With a SOCKS proxy, which Python does not know, True.
    """
    if any(kind == "all" or proxy.startswith("socks") for kind, proxy in urllib.request.getproxies().items()):
        return True
    answers: list[bool] = []
    probe = threading.Thread(target=lambda: answers.append(_has_answer(url)), daemon=True)
    probe.start()
    probe.join(MAX_PROBE_SECONDS)
    return bool(answers and answers[0])


def _has_answer(url: str) -> bool:
    parts = urlparse(url)
    request = urllib.request.Request(f"{parts.scheme}://{parts.netloc}/", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=MAX_ANSWER_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, SSLError)  # downloads may have certificates of their own
    except Exception:
        return False


def find_host(url: str) -> str:
    """Return the host of an address, for messages.

    >>> find_host("https://models.example.org/resnet18.pth")
    'models.example.org'
    """
    return urlparse(url).netloc


def connection_error(url: str) -> ConnectionError:
    """Return the error for a file that is neither in a cache nor can be downloaded."""
    from huggingface_hub import constants

    is_hub = find_host(url) == find_host(constants.ENDPOINT)
    reason = "HF_HUB_OFFLINE is set" if is_hub and constants.HF_HUB_OFFLINE else f"{find_host(url)} cannot be reached"
    return ConnectionError(f"{reason}, and the cache does not have them")


def is_downloaded(url: str) -> bool:
    """Return whether torch's cache has the file of an address."""
    import torch

    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name).is_file()


@contextmanager
def hub_state(*, offline: bool, progress: bool = True) -> Iterator[None]:
    """Set whether huggingface_hub may use the network and shows progress, and silence its log; restored on exit."""
    from huggingface_hub import constants, utils

    tools: Any = utils
    was_offline, verbosity = constants.HF_HUB_OFFLINE, tools.logging.get_verbosity()
    hide = not progress and not tools.are_progress_bars_disabled()
    tools.logging.set_verbosity_error()
    constants.HF_HUB_OFFLINE = was_offline or offline
    if hide:
        tools.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            tools.enable_progress_bars()
        constants.HF_HUB_OFFLINE = was_offline
        tools.logging.set_verbosity(verbosity)
