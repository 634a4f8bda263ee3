"""What goes wrong with the hub, in the converter's errors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rkllm_converter.errors import ConvertError, GatedModel, HubUnreachable, ModelNotFound, SourceError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

__all__ = ["explained", "no_hub", "without_password"]

_USER = re.compile(r"(^|//)[^/?#\s]*@")
_REFUSED = (401, 403)
_NOT_FOUND = 404
_LOG_IN = "make a token at {hub}/settings/tokens, and set HF_TOKEN to it or run `hf auth login`"


@contextlib.contextmanager
def explained(repository: str, revision: str | None, hub: str, cache: Path) -> Iterator[None]:
    """Turn what huggingface_hub and its HTTP client raise into errors that say what to do."""
    from huggingface_hub.errors import (  # noqa: PLC0415 - needed for models of the hub only
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    # Releases of the library have changed its HTTP client (requests, httpx, httpx2), and this base with it.
    transport: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        yield
    except ConvertError:
        raise
    except OfflineModeIsEnabled as error:
        raise _offline(repository) from error
    except LocalEntryNotFoundError as error:
        raise _behind(error, repository, revision, hub) from error
    except HfHubHTTPError as error:
        raise _answered(error, repository, revision, hub) from error
    except HFValidationError as error:
        raise ModelNotFound(f"{repository!r} cannot be the name of a model of the hub. Check it.") from error
    except transport as error:
        raise _unreachable(error, repository, hub) from error
    except (ValueError, RecursionError) as error:
        raise HubUnreachable(
            f"{hub} answered for {repository} with something that cannot be used: {_reason(error)}. Check HF_ENDPOINT."
        ) from error
    except OSError as error:
        if error.errno is None:  # the library's word for a file of another size than was announced
            raise HubUnreachable(
                f"The download of {repository} from {hub} broke off. Run the same command again: it goes on there."
            ) from error
        raise SourceError(
            f"{repository} cannot be written to {cache}: {error.strerror}. Make room, or set HF_HOME to another folder."
        ) from error


def without_password(text: str) -> str:
    """An address, or a text with addresses, without the user and password in them."""
    return _USER.sub(r"\1", text)


def no_hub(repository: str, hub: str) -> HubUnreachable:
    return HubUnreachable(
        f"{hub} answered for {repository} with something that is no description of a model. Check HF_ENDPOINT, and "
        "whether a proxy wants a log-in."
    )


def _behind(error: Exception, repository: str, revision: str | None, hub: str) -> SourceError:
    """The library hides most failures of a file behind 'it is not in the cache'."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled  # noqa: PLC0415 - as above

    cause = error.__cause__
    if isinstance(cause, OfflineModeIsEnabled):
        return _offline(repository)
    if isinstance(cause, HfHubHTTPError):
        return _answered(cause, repository, revision, hub)
    return _unreachable(cause if isinstance(cause, Exception) else error, repository, hub)


def _answered(error: HfHubHTTPError, repository: str, revision: str | None, hub: str) -> SourceError:
    from huggingface_hub import errors, get_token  # noqa: PLC0415 - as above

    status = error.response.status_code
    log_in = _LOG_IN.format(hub=hub)
    if isinstance(error, errors.GatedRepoError):
        who = "the account of the token that is used here" if get_token() else "an account"
        return GatedModel(
            f"{repository} is gated: its makers want to know who downloads it. Accept the terms at {hub}/{repository} "
            f"with {who}, {log_in}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelNotFound(f"{repository} has no revision {revision!r}. Check the branch, tag or commit.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelNotFound(
            f"There is no model {repository} at {hub}, or it is private. Check its name; for a private one {log_in}."
        )
    if status == _NOT_FOUND:
        return ModelNotFound(f"{hub} does not have what was asked of {repository} (404). Check its name and revision.")
    if status in _REFUSED:
        return GatedModel(
            f"{hub} refused {repository} ({status}): {error.server_message or 'no reason'}. To log in, {log_in}."
        )
    return HubUnreachable(
        f"{hub} answered {status} for {repository}: {error.server_message or 'no reason given'}. Try again later."
    )


def _offline(repository: str) -> HubUnreachable:
    return HubUnreachable(
        f"HF_HUB_OFFLINE is set, so {repository} cannot be looked up. Unset it, or give the folder that has the model."
    )


def _unreachable(error: BaseException, repository: str, hub: str) -> HubUnreachable:
    return HubUnreachable(
        f"{hub} cannot be reached for {repository}: {_reason(error)}. Check the network of this machine, and "
        "HF_ENDPOINT if a mirror is used; the same command goes on where this one stopped."
    )


def _reason(error: BaseException) -> str:
    return without_password((str(error) or type(error).__name__).splitlines()[0].rstrip("."))
