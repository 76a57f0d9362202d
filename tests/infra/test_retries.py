"""What is tried again, how often, how long it waits, and that all of it is counted."""

import errno
import logging
import socket
import threading
from importlib import import_module

import pytest
from s3fs.errors import translate_boto_error

from hvlm.errors import UserError
from infra import retries
from tests.infra import faulty

# Installed with Ray, MLflow and s3fs; the product imports none of them.
aiohttp, requests, botocore = map(import_module, ("aiohttp", "requests", "botocore.exceptions"))


def s3_error(code, status):
    response = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.ClientError(response, "PutObject")


def http_error(status):
    error = requests.HTTPError()
    error.response = requests.Response()
    error.response.status_code = status
    return error


def caused(error, cause):
    error.__cause__ = cause
    return error


class GcsHttpError(Exception):
    """As gcsfs's."""

    def __init__(self, code):
        self.code = code


TRANSIENT = [
    ConnectionResetError("reset"),
    BrokenPipeError("pipe"),
    TimeoutError("late"),
    TimeoutError(),
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    OSError(errno.EIO, "I/O"),
    OSError(errno.ESTALE, "stale handle"),
    OSError(errno.EAGAIN, "again"),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientPayloadError("cut off"),
    aiohttp.ClientOSError(errno.ECONNRESET, "reset"),
    aiohttp.ClientResponseError(None, (), status=503),
    requests.ConnectionError("refused"),
    http_error(429),
    GcsHttpError(500),
    botocore.EndpointConnectionError(endpoint_url="http://s3"),
    botocore.ReadTimeoutError(endpoint_url="http://s3"),
    botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    s3_error("SlowDown", 503),
    s3_error("RequestTimeout", 400),
    translate_boto_error(s3_error("SlowDown", 503)),
    translate_boto_error(s3_error("InternalError", 500)),
    translate_boto_error(s3_error("RequestTimeout", 400)),
    translate_boto_error(s3_error("IncompleteBody", 400)),
    caused(FileNotFoundError("http://host/v.mp4"), aiohttp.ClientResponseError(None, (), status=503)),
    caused(FileNotFoundError("http://host/v.mp4"), aiohttp.ServerDisconnectedError()),
]
PERMANENT = [
    FileNotFoundError("gone"),
    NotADirectoryError("file"),
    PermissionError("denied"),
    OSError(errno.ENOSPC, "full"),
    OSError(errno.ENAMETOOLONG, "long"),
    OSError("no number"),
    socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    EOFError("short"),
    ValueError("bucket name"),
    UserError(what="a", got="b", expected="c", do="d"),
    aiohttp.ClientResponseError(None, (), status=403),
    aiohttp.InvalidURL("nonsense"),
    http_error(404),
    GcsHttpError(401),
    botocore.NoCredentialsError(),
    botocore.ParamValidationError(report="bad"),
    s3_error("AccessDenied", 403),
    translate_boto_error(s3_error("AccessDenied", 403)),
    translate_boto_error(s3_error("NoSuchBucket", 404)),
    translate_boto_error(s3_error("InvalidAccessKeyId", 403)),
    translate_boto_error(s3_error("SomethingNew", 400)),  # s3fs makes it an input/output error
    caused(FileNotFoundError("http://host/v.mp4"), aiohttp.ClientResponseError(None, (), status=404)),
    caused(PermissionError("denied"), ConnectionResetError("before it")),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_what_may_pass_is_transient(error):
    assert retries.is_transient(error)


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_what_will_not_pass_is_permanent(error):
    assert not retries.is_transient(error)


def test_the_tests_own_faults_are_what_they_say():
    verdicts = {kind: retries.is_transient(make()) for kind, make in faulty.ERRORS.items()}
    assert verdicts == dict.fromkeys(faulty.TRANSIENT, True) | dict.fromkeys(faulty.PERMANENT, False)


@pytest.fixture
def waits(monkeypatch):
    made = []
    monkeypatch.setattr(retries, "_sleep", made.append)
    retries.take()
    return made


def failing(times, error):
    left = [error] * times

    def call():
        if left:
            raise left.pop()
        return "result"

    return call


def test_it_waits_longer_each_time_counts_and_tells(waits, caplog):
    assert retries.retrying("s3://b/v.mp4", failing(5, TimeoutError("late"))) == "result"
    assert retries.take() == len(waits) == 5 and retries.take() == 0
    for wait_s, full_s in zip(waits, (0.5, 1, 2, 4, 8), strict=True):
        assert full_s / 2 <= wait_s <= full_s
    assert "s3://b/v.mp4: attempt 1 of 6 failed (TimeoutError: late); the next in 0." in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING} and len(caplog.records) == 5


def test_it_gives_up_after_the_last_attempt(waits, caplog):
    error = ConnectionResetError("reset")
    with pytest.raises(ConnectionResetError) as caught:
        retries.retrying("s3://b/v.mp4", failing(6, error))
    assert caught.value is error and retries.take() == 5
    assert "s3://b/v.mp4 failed 6 times, giving up (ConnectionResetError: reset)" in caplog.text


def test_it_gives_up_when_the_calls_themselves_take_too_long(waits, monkeypatch):
    now = iter(range(0, 1000, 50))
    monkeypatch.setattr(retries.time, "monotonic", lambda: float(next(now)))
    with pytest.raises(TimeoutError):
        retries.retrying("s3://b/v.mp4", failing(6, TimeoutError("after 50 s")))
    assert retries.take() == 2  # at 50 s and 100 s; 150 s are beyond `TOTAL_S`


def test_a_permanent_error_is_raised_at_once(waits, caplog):
    with pytest.raises(PermissionError):
        retries.retrying("s3://b/v.mp4", failing(1, PermissionError("denied")))
    assert (waits, retries.take(), caplog.text) == ([], 0, "")


def test_a_server_that_does_not_answer_is_not_taken_for_a_missing_file(waits):
    error = caused(FileNotFoundError("http://host/v.mp4"), aiohttp.ServerDisconnectedError())
    with pytest.raises(ConnectionError, match=r"http://host/v.mp4 cannot be reached: ServerDisconnectedError"):
        retries.retrying("http://host/v.mp4", failing(6, error))


def test_retries_of_all_threads_are_counted(waits):
    call = lambda: retries.retrying("u", failing(3, TimeoutError()))  # noqa: E731
    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    retries.add(2)
    assert retries.take() == 26
