"""Publications → repositories of the Hugging Face hub, each by one commit.

Large files are sent ahead by the library's own machinery (Xet, or LFS where HF_HUB_DISABLE_XET=1 is set);
nobody sees them before the commit, and what has arrived is not sent again. A new repository is private until
its commit is there; one that holds anything else is never opened, for its history would be open with it.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import (
    CommitOperation,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    RepoCard,
    constants,
    hf_hub_download,
)
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars

from asclepius_ray.artifacts import MANIFEST_NAME, Folder
from asclepius_ray.errors import AsclepiusError, ConfigError, PublishError
from asclepius_ray.progress import Progress
from asclepius_ray.publish.publication import CARD_NAME, Publication, changed

FILES_AT_A_TIME = 5
SMALL_FILE_BYTES = 1 << 20
"""Up to this size a file is read once and sent from memory."""
_NOT_CONTENT = {".gitattributes"}


@dataclass
class Upload:
    """One publication and the repository that it goes to."""

    publication: Publication
    name: str
    is_public: bool
    """Whether the repository is open to everybody now."""
    head: str
    """The commit that ours will follow."""
    outdated: list[str]
    """What an earlier publication put there, and this one does not hold."""
    additions: list[CommitOperationAdd] = field(default_factory=list)
    is_committed: bool = False

    @property
    def kind(self) -> str:
        return self.publication.kind


def publish_to_hub(
    publications: list[Publication], name: str, is_public: bool, token: str, progress: Progress
) -> list[str]:
    """Publishes all of them and returns the addresses of their repositories.

    Everything is sent ahead before the first commit; a PublishError says what to do where that fails.
    """
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    api = HfApi(token=token)
    uploads: list[Upload] = []
    with ExitStack() as copies, _explained(api.endpoint, uploads):
        _check_token(api)
        for publication in publications:
            _check_card(publication)
        for publication in publications:
            uploads.append(_open_repository(api, publication, name, is_public))
        for upload in uploads:
            folder = upload.publication.folder
            local = Folder(str(copies.enter_context(folder.as_local())))
            upload.additions = _additions(upload.publication.at(local))
            _send_ahead(api, upload, progress)
        for upload in uploads:
            progress.begin(f"committing the {upload.kind}")
            _commit(api, upload)
            upload.is_committed = True
        for upload in uploads:
            if is_public and not upload.is_public:
                api.update_repo_settings(upload.name, visibility="public", repo_type=upload.kind)
    return [address_of(upload.kind, name, api.endpoint) for upload in uploads]


def address_of(kind: str, name: str, endpoint: str = constants.ENDPOINT) -> str:
    return f"{endpoint}/{'datasets/' if kind == 'dataset' else ''}{name}"


def _check_token(api: HfApi) -> None:
    access = api.whoami().get("auth", {}).get("accessToken", {})
    if access.get("role") == "read":
        raise ConfigError("the key in HF_TOKEN may only read; make one that may write, at the hub's settings")


def _check_card(publication: Publication) -> None:
    """Has the hub look at the card's head, which it would otherwise refuse after all is sent."""
    text = publication.folder.read_bytes(CARD_NAME).decode("utf-8")
    try:
        RepoCard(text).validate(publication.kind)
    except ValueError as error:
        raise PublishError(
            f"the hub refuses the head of {publication.folder.shown}/{CARD_NAME}: {_shortened(str(error))}"
        ) from None


def _open_repository(api: HfApi, publication: Publication, name: str, is_public: bool) -> Upload:
    """Finds the repository or makes it, private; a PublishError if it is not ours to write to."""
    kind = publication.kind
    try:
        info = api.repo_info(name, repo_type=kind)
    except RepositoryNotFoundError:
        api.create_repo(name, repo_type=kind, visibility="private", exist_ok=True)
        info = api.repo_info(name, repo_type=kind)
    there = set(api.list_repo_files(name, repo_type=kind, revision=info.sha)) - _NOT_CONTENT
    if not info.private and not is_public:
        raise PublishError(
            f"{address_of(kind, name, api.endpoint)} is open to everybody already; say --public if that is "
            "what you want, or name another repository"
        )
    if info.private and is_public and not _holds_nothing_else(api, publication, name):
        raise PublishError(
            f"{address_of(kind, name, api.endpoint)} is private and holds more than this version of the "
            f"{kind}: --public would open all that was ever put there; open it by hand at the hub's settings "
            "if all of it may be seen, or name another repository"
        )
    head = str(info.sha)
    outdated = _earlier_files(api, name, kind, head, there) - publication.sizes.keys()
    return Upload(publication, name, not info.private, head, sorted(outdated))


def _holds_nothing_else(api: HfApi, publication: Publication, name: str) -> bool:
    """Whether a repository is as the hub makes it, or has this very publication alone on top of that.

    So it is where this command made it just now, or was cut short before.
    """
    kind = publication.kind
    refs = api.list_repo_refs(name, repo_type=kind, include_pull_requests=True)
    if len(refs.branches) != 1 or refs.tags or refs.pull_requests:
        return False
    *later, first = api.list_repo_commits(name, repo_type=kind)
    files = set(api.list_repo_files(name, repo_type=kind, revision=first.commit_id)) - _NOT_CONTENT
    return not files and all(commit.title == _title(publication) for commit in later)


def _title(publication: Publication) -> str:
    """The title of a publication's commit."""
    return f"Publish the {publication.kind}, version {publication.version}"


def _earlier_files(api: HfApi, name: str, kind: str, head: str, there: set[str]) -> set[str]:
    """The files of an earlier publication; a PublishError if there are files and none says what they are."""
    if not there:
        return set()
    earlier: dict[str, Any] = {}
    if MANIFEST_NAME in there:
        path = hf_hub_download(name, MANIFEST_NAME, repo_type=kind, revision=head, token=api.token)
        earlier = json.loads(Path(path).read_bytes())
    if earlier.get("artifact") != kind:
        raise PublishError(
            f"{address_of(kind, name, api.endpoint)} holds files that no run published there; they are left "
            "as they are: name another repository, or a new one"
        )
    return there & {*earlier["files"], MANIFEST_NAME}


def _additions(publication: Publication) -> list[CommitOperationAdd]:
    """One operation a file; small ones are read here, and are what the manifest says."""
    additions = []
    for name, size in publication.sizes.items():
        if size > SMALL_FILE_BYTES:
            additions.append(CommitOperationAdd(name, publication.folder.local_path / name))
            continue
        addition = CommitOperationAdd(name, publication.folder.read_bytes(name))
        _check_unchanged(publication, addition)
        additions.append(addition)
    return additions


def _send_ahead(api: HfApi, upload: Upload, progress: Progress) -> None:
    """Sends what is too large for a commit, and finds out what is there already."""
    progress.begin(f"sending the {upload.kind}", len(upload.additions))
    for start in range(0, len(upload.additions), FILES_AT_A_TIME):
        few = upload.additions[start : start + FILES_AT_A_TIME]
        api.preupload_lfs_files(
            upload.name, few, repo_type=upload.kind, num_threads=FILES_AT_A_TIME, free_memory=False
        )
        for addition in few:
            _check_unchanged(upload.publication, addition)
        progress.update(start + len(few))


def _check_unchanged(publication: Publication, addition: CommitOperationAdd) -> None:
    # The hash of what was sent: the file may have been made anew since it was looked at.
    expected = publication.manifest.files.get(addition.path_in_repo)
    if expected is not None and addition.upload_info.sha256.hex() != expected:
        raise changed(publication, addition.path_in_repo)


def _commit(api: HfApi, upload: Upload) -> None:
    deletions = [CommitOperationDelete(name) for name in upload.outdated]
    operations: list[CommitOperation] = [*upload.additions, *deletions]
    api.create_commit(
        upload.name,
        operations,
        commit_message=_title(upload.publication),
        repo_type=upload.kind,
        parent_commit=upload.head,
    )


@contextmanager
def _explained(endpoint: str, uploads: list[Upload]) -> Iterator[None]:
    """Turns the library's errors into one sentence, which says what is there by then and holds no key."""
    try:
        yield
    except AsclepiusError:
        raise
    except HfHubHTTPError as error:
        raise _refused(endpoint, error, uploads) from None
    except ValueError as error:
        # A name or an object that the hub does not take, such as one beyond the owner's quota.
        raise PublishError(
            f"{endpoint} does not take this: {_shortened(str(error))}; {_so_far(uploads)}"
        ) from None
    except (httpx2.HTTPError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # One file's upload fails as a RuntimeError around the cause.
        cause = error.__cause__ or error
        if isinstance(cause, HfHubHTTPError):
            raise _refused(endpoint, cause, uploads) from None
        raise PublishError(
            f"{endpoint} cannot be reached or broke off ({type(cause).__name__}); {_so_far(uploads)}: "
            "say the same command again, what has arrived is not sent a second time; for a hub without Xet "
            "storage set HF_HUB_DISABLE_XET=1"
        ) from None


def _refused(endpoint: str, error: HfHubHTTPError, uploads: list[Upload]) -> PublishError:
    status = error.response.status_code
    said = _shortened(error.server_message or "")
    return PublishError(
        f"{endpoint} refused (HTTP {status}{': ' + said if said else ''}); {_so_far(uploads)}: "
        f"{_advice(status)}, and say the same command again, which goes on from there"
    )


def _so_far(uploads: list[Upload]) -> str:
    """What is published and what is not, where a publication ends early."""
    there = [f"the {upload.kind}" for upload in uploads if upload.is_committed]
    missing = [f"the {upload.kind}" for upload in uploads if not upload.is_committed]
    if not there:
        return "nothing is published yet"
    if not missing:
        return f"{' and '.join(there)} arrived whole, and whether all may read it is not confirmed"
    return f"{' and '.join(there)} is published already, {' and '.join(missing)} is not confirmed to be"


def _shortened(text: str) -> str:
    return " ".join(text.split())[:300]


def _advice(status: int) -> str:
    if status == 401:
        return "put a valid key into HF_TOKEN"
    if status == 403:
        return "use a key in HF_TOKEN that may write to this owner's repositories"
    if status == 412:
        return "the repository was changed at the same time: look at it"
    return "look at what it says"
