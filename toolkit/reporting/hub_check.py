"""Whether a run could be uploaded to the Hugging Face Hub: asked before the training, which may take days.

Nothing is made there yet.
"""

from __future__ import annotations

import inspect
from typing import Any

TOKENS = "https://huggingface.co/settings/tokens"
LATER = "or set save.push_to_hub to false and upload afterwards with `aitk publish RUN_FOLDER`"


def why_no_upload(repository: str, private: bool = False) -> str:
    """What keeps a repository, `owner/name` or `name`, from being written to, with what to do; "" if nothing does."""
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        return f"HF_HUB_OFFLINE is set, so that nothing can be uploaded: unset it, {LATER}"
    if get_token() is None:
        return f"there is no token of the Hub: make one that may write at {TOKENS}; `hf auth login`, or set HF_TOKEN"
    api = HfApi()
    try:
        me = api.whoami()
        owner, _, name = repository.rpartition("/")
        owner = owner or str(me["name"])
        return _why_not_owner(me, owner, f"{owner}/{name}") or _why_not_there(api, f"{owner}/{name}", private)
    except HfHubHTTPError as error:
        return _refused(error, repository)
    # the classes of a failed connection differ between versions of huggingface_hub
    except Exception as error:
        return f"{api.endpoint} cannot be reached ({_reason(error)}): try again, {LATER}"


def _why_not_owner(me: Any, owner: str, repository: str) -> str:
    """What keeps the account and its token from writing below `owner`."""
    token, name = me.get("auth", {}).get("accessToken", {}), repository.rpartition("/")[2]
    if token.get("role") == "read":
        return f"the token '{token.get('displayName', '')}' may only read: make one that may write at {TOKENS}"
    if token.get("role") == "fineGrained" and not _is_granted(token.get("fineGrained"), owner, repository):
        return f"the fine-grained token may not write to {repository}: allow it at {TOKENS}"
    organizations = {other.get("name"): other.get("roleInOrg") for other in me.get("orgs", [])}
    if owner != me["name"] and owner not in organizations:
        return f"the token is that of {me['name']}, who is not a member of {owner}: name {me['name']}/{name}, or log in"
    if organizations.get(owner) == "read":
        return f"{me['name']} may only read in {owner}: ask its administrators for the right to write"
    return ""


def _is_granted(rights: Any, owner: str, repository: str) -> bool:
    """Whether a fine-grained token has the right to write; True where the Hub does not say what it may."""
    if not rights:
        return True
    scopes = [scope for scope in rights.get("scoped", []) if "repo.write" in scope.get("permissions", [])]
    return any(scope.get("entity", {}).get("name") in (owner, repository) for scope in scopes)


def _why_not_there(api: Any, repository: str, private: bool) -> str:
    """What is wrong with a repository that exists already."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = api.model_info(repository)
    except GatedRepoError:
        return ""
    except RepositoryNotFoundError:
        return ""  # it will be made
    if private and info.private is False:
        return f"{repository} is there and public, but it should be private: change that on its page, or name another"
    if "write" in inspect.signature(api.auth_check).parameters:
        api.auth_check(repository, write=True)
    return ""


def _refused(error: Any, repository: str) -> str:
    """What the Hub's answer means."""
    code = getattr(error.response, "status_code", None)
    if code == 401:
        return f"the Hub does not know the token (revoked, or mistyped; HF_TOKEN goes before `hf auth login`): {TOKENS}"
    if code == 403:
        return f"the token may not write to {repository} ({_reason(error)}): see {TOKENS}"
    return f"the Hub refused to tell about {repository} ({_reason(error)}): try again, {LATER}"


def _reason(error: BaseException) -> str:
    """The first line of what an error says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
