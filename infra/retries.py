"""Tries a storage call again when it failed for the moment, and counts how often that was needed.

Transient is what another try may mend: connections, time-outs, throttling, a server's own errors. Permanent is what
it cannot: no such file, no permission, no space, wrong credentials, a wrong request. What is not known to be transient
is permanent. Storage libraries have exceptions of their own; they are told apart by what they carry (an HTTP status, an
error number) and by the names of their classes, so that none of the libraries needs to be there.
"""

import errno
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")

ATTEMPTS = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0  # 0.5, 1, 2, 4, 8 s less jitter: rides out what is over in ten seconds
TOTAL_S = 120.0  # calls that each time out after a minute are not made six times

_ERRNOS = {
    *(errno.EIO, errno.EREMOTEIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT),
    *(errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.EPIPE, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, socket.EAI_AGAIN),
}
_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_CODES = {  # S3's names for them; some come with status 400 or 409
    *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"),
    *("RequestTimeout", "RequestTimeoutException", "IncompleteBody", "OperationAborted", "InternalError"),
}
_CLASSES = {  # Python's own, and those of botocore, aiohttp, requests, urllib3, http.client, azure and google
    *("ConnectionError", "TimeoutError", "HTTPClientError", "IncompleteReadError", "ResponseParserError"),
    *("ClientConnectionError", "ClientPayloadError", "ChunkedEncodingError", "ProtocolError", "IncompleteRead"),
    *("ServiceRequestError", "ServiceResponseError", "TransportError"),
}

_lock = threading.Lock()
_num_retries = 0
_sleep = time.sleep


def retrying(uri: str, call: Callable[[], T]) -> T:
    """Return `call()`, made again after growing waits while it fails for the moment.

    Args:
        uri: what the call is about, for the log.
        call: may be made several times.

    Raises:
        Exception: the call's own, at once if it is permanent, else that of the last attempt.
    """
    started, attempt = time.monotonic(), 1
    while True:
        try:
            return call()
        except Exception as error:
            wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
            if not is_transient(error):
                raise
            if attempt == ATTEMPTS or time.monotonic() - started + wait_s > TOTAL_S:
                logger.warning("%s failed %d times, giving up (%s)", uri, attempt, _words(error))
                if isinstance(error, FileNotFoundError):  # see `is_transient`: nobody knows whether it is there
                    raise ConnectionError(f"{uri} cannot be reached: {_words(error.__cause__)}") from error
                raise
            text = "%s: attempt %d of %d failed (%s); the next in %.1f s"
            logger.warning(text, uri, attempt, ATTEMPTS, _words(error), wait_s)
        add(1)
        _sleep(wait_s)
        attempt += 1


def add(number: int) -> None:
    """Count retries that were made elsewhere, e.g. in a Ray worker."""
    global _num_retries
    with _lock:
        _num_retries += number


def take() -> int:
    """Return the retries counted in this process since the last call, and count from zero again."""
    global _num_retries
    with _lock:
        number, _num_retries = _num_retries, 0
    return number


def is_transient(error: BaseException) -> bool:
    """Return whether the same call may succeed a little later."""
    chain = list(_causes(error))
    for link in chain:  # what the server said counts more than what a library made of it
        status, code = _response(link)
        if status is not None or code is not None:
            return code in _CODES or status in _STATUSES
    hidden = isinstance(error, FileNotFoundError)  # fsspec's HTTP says so of a server that does not answer
    return any(_is_of_the_moment(link) for link in chain[: 2 if hidden else 1])


def _is_of_the_moment(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & _CLASSES) or (isinstance(error, OSError) and error.errno in _ERRNOS)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _response(error: BaseException) -> tuple[int | None, str | None]:
    """Return the HTTP status and the error code that an exception carries, wherever its library puts them."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        code, status = response.get("Error", {}).get("Code"), response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status, code
    places = ((error, "status"), (error, "status_code"), (error, "code"), (response, "status_code"))
    for holder, name in places:  # aiohttp, azure, gcsfs and google, requests
        value = getattr(holder, name, None)
        if isinstance(value, int) and 100 <= value < 600:
            return value, None
    return None, None


def _words(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"
