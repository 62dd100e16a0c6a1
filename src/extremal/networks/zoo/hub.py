"""Networks of the Hugging Face hub: settings and weights in safetensors, from its cache or by download."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

from extremal.errors import ExtremalValueError, Notice, check_installed
from extremal.file_checks import describe_error, quote
from extremal.json_files import MAX_JSON_BYTES
from extremal.networks.network_files import HUB_NAME, is_hub_name
from extremal.networks.zoo.connections import find_host, hub_state, is_reachable
from extremal.networks.zoo.huggingface_files import PICKLE_SUFFIXES, SAFETENSORS_FILE

REQUEST_SECONDS = 10  # for an answer of the hub, once it has answered
TOKENIZER_PATTERNS = ("*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")  # of models of images and text
SETTINGS_PATTERNS = ("*.json", "README.md", *TOKENIZER_PATTERNS)  # files to download, in the folder itself
WEIGHT_PATTERNS = ("*.safetensors",)
MAX_CARD = 20_000  # characters of a model card that are searched for its licence
TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500  # statuses of answers
_COMMIT = re.compile(r"[0-9a-f]{40}")

CheckSettings = Callable[[Path], object]  # folder with the settings only; raises if the network is not supported


@dataclass(frozen=True)
class HubName:
    """The name of a repository on the hub.

    >>> HubName.parse("microsoft/resnet-50@v1"), HubName.parse("./checkpoints/vit")
    (HubName(repository='microsoft/resnet-50', revision='v1'), None)

    Attributes:
        repository: OWNER/NAME.
        revision: a branch, tag or commit; empty: the newest.
    """

    repository: str
    revision: str = ""

    @classmethod
    def parse(cls, text: str) -> "HubName | None":
        """Parse OWNER/NAME[@REVISION]; None if the text has another form."""
        found = HUB_NAME.fullmatch(text)
        return cls(found[1], found[2] or "") if found and is_hub_name(text) else None


@dataclass(frozen=True)
class Snapshot:
    """A folder of the hub's cache.

    Attributes:
        folder: with settings and weights of one revision.
        licence: as the model card names it; empty if it does not.
        is_new: whether the hub was asked for it; otherwise it was read from the cache.
    """

    folder: Path
    licence: str
    is_new: bool

    @property
    def source(self) -> str:
        """The origin of the network, in words.

        >>> Snapshot(Path("34c2154c194f829b11125337b98c8f5f9965ff19"), "apache-2.0", True).source
        'the hub, revision 34c2154c194f829b11125337b98c8f5f9965ff19, licence apache-2.0'
        """
        origin = "the hub" if self.is_new else "the cache of the hub"
        return f"{origin}, revision {self.folder.name}, licence {self.licence or 'not stated'}"


def fetch(name: str, hub_name: HubName, check_settings: CheckSettings, *, with_weights: bool = True) -> Snapshot:
    """Return the newest snapshot of a repository: from the hub, or from its cache if the hub is not available.

    A commit whose files are in the cache is read from there. Settings are downloaded and checked before weights are.
    Code and pickles are never downloaded. A notice names revision and licence.

    Args:
        name: of the network, for messages.
        hub_name: the repository.
        check_settings: is called with a folder that has the settings.
        with_weights: whether the weights are needed.

    Raises:
        ExtremalValueError: there is no such repository or revision, it is private or gated, has no weights in
            safetensors, or the hub cannot be reached and the cache does not have it.
        MissingDependencyError: huggingface_hub is not installed.
    """
    check_installed("huggingface_hub", purpose="a network of the hub", extra="hf")
    from huggingface_hub import constants

    cached = _find_cached(hub_name)
    has_all = cached is not None and (not with_weights or _has_weights(path.name for path in cached.iterdir()))
    if cached is not None and has_all and _COMMIT.fullmatch(hub_name.revision):
        folder, is_new = cached, False
    elif constants.HF_HUB_OFFLINE or not is_reachable(constants.ENDPOINT):
        if cached is None or not has_all:
            host = find_host(constants.ENDPOINT)
            state = "not in the cache" if cached is None else "in the cache without its weights"
            reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{host} cannot be reached"
            raise ExtremalValueError(
                f"a network must be a local folder, in the cache of the hub, or on {host} while it can be reached, got "
                f"{quote(name)}, which is {state}, and {reason}; connect, or download it elsewhere and pass its folder"
            )
        folder, is_new = cached, False
    else:
        try:
            folder, is_new = _download(name, hub_name, check_settings, with_weights), True
        except ExtremalValueError:
            raise
        except Exception as error:
            if cached is None or not has_all or not _is_unavailable(error):
                _raise_download_error(name, hub_name, error)
            folder, is_new = cached, False
    snapshot = Snapshot(folder, _read_licence(folder), is_new)
    warnings.warn(f"{quote(name)[1:-1]} is read from {snapshot.source}", Notice, stacklevel=6)
    return snapshot


def _find_cached(hub_name: HubName) -> Path | None:
    """Return the folder of the cache with the settings of a revision; None if there is none."""
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(hub_name.repository, "config.json", revision=hub_name.revision or None)
    return Path(file).parent if isinstance(file, str) else None


def _has_weights(files: Any) -> bool:
    return bool({SAFETENSORS_FILE, f"{SAFETENSORS_FILE}.index.json"} & set(files))


def _download(name: str, hub_name: HubName, check_settings: CheckSettings, with_weights: bool) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    revision = hub_name.revision or None
    with hub_state(offline=False, progress=False):
        info = HfApi().model_info(hub_name.repository, revision=revision, timeout=REQUEST_SECONDS)
        files = [str(file.rfilename) for file in info.siblings or ()]
        _check_files(name, files, with_weights)
        config = hf_hub_download(hub_name.repository, "config.json", revision=revision)
        check_settings(Path(config).parent)
    with hub_state(offline=False):
        patterns = [*SETTINGS_PATTERNS, *(WEIGHT_PATTERNS if with_weights else ())]
        folder = snapshot_download(
            hub_name.repository, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]
        )
    return Path(folder)


def _is_unavailable(error: Exception) -> bool:
    """Return whether an error means that the hub has no answer at present, rather than that it refuses."""
    status = _get_status(error)
    return status is None or status == TOO_MANY_REQUESTS or status >= SERVER_ERROR


def _check_files(name: str, files: list[str], with_weights: bool) -> None:
    """Check that a repository has settings, and weights in safetensors.

    Raises:
        ExtremalValueError: it does not.
    """
    if "config.json" not in files:
        raise ExtremalValueError(
            f"a network of the hub must have a config.json, got {quote(name)} without one; choose a repository in the "
            "format of transformers, or for timm:hf-hub: of timm"
        )
    if with_weights and not _has_weights(files):
        pickled = next((file for file in files if Path(file).suffix in PICKLE_SUFFIXES), None)
        found = f"with {quote(pickled)}, which may run any code when it is unpickled" if pickled else "without any"
        raise ExtremalValueError(
            f"weights must be in safetensors, got {quote(name)} {found}; choose a repository or revision with "
            f"{SAFETENSORS_FILE}, e.g. a pull request of the hub's converter as @refs/pr/N"
        )


def _raise_download_error(name: str, hub_name: HubName, error: Exception) -> Never:
    """Raise an error of the hub as one sentence."""
    from huggingface_hub import constants, errors

    host = find_host(constants.ENDPOINT)
    if isinstance(error, errors.GatedRepoError):
        problem = "which is gated"
        remedy = f"accept its conditions on {host}/{hub_name.repository}, and log in with `hf auth login`"
    elif isinstance(error, errors.RevisionNotFoundError):
        problem = f"which has no revision {quote(hub_name.revision)}"
        remedy = "name a branch, tag or commit after @"
    elif isinstance(error, errors.RepositoryNotFoundError) or _get_status(error) in (401, 403):
        problem = "which does not exist there or is private"
        remedy = "check the name, or log in with `hf auth login`"
    else:
        problem = f"whose download failed: {describe_error(error)}"
        remedy = "try again, or download it elsewhere and pass its folder"
    raise ExtremalValueError(
        f"a network must be a local folder, or on {host} and open to you, got {quote(name)}, {problem}; {remedy}"
    ) from None


def _get_status(error: Exception) -> int | None:
    """Return the status of an answer of the hub; None if the error is of another kind."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _read_licence(folder: Path) -> str:
    """Return the licence that the head of a model card names; empty if there is none."""
    card = folder / "README.md"
    if not card.is_file() or card.stat().st_size > MAX_JSON_BYTES:
        return ""
    with card.open(encoding="utf-8", errors="replace") as file:
        text = file.read(MAX_CARD)
    head = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    entries = (
        dict(re.findall(r"^(license(?:_name)?):[ \t]*[\"']?([\w.+-]{1,80})", head[1], re.MULTILINE)) if head else {}
    )
    return str(entries.get("license_name") or entries.get("license") or "")
