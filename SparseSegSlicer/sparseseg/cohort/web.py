"""Requests to one DICOMweb server: where they may go, who asks, what is tried again, and what is said where it fails. Standard library only.

A request goes to the server that was named and nowhere else: a redirection is refused, and so never sees a login. A login comes from the environment,
for the one host that is named there, or from the netrc file; it is in no sentence, and nothing here logs.
"""

from __future__ import annotations

import base64
import http.client
import netrc
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from .. import __version__
from ..contract.errors import InputError, ServerError

HOST, TOKEN, LOGIN = "SPARSESEG_DICOMWEB_HOST", "SPARSESEG_DICOMWEB_TOKEN", "SPARSESEG_DICOMWEB_LOGIN"  # in the environment
TIMEOUT_S = 60.0  # for a connection, and for the next bytes
PAUSES_S = (1.0, 4.0, 16.0)  # before each further try
PIECE = 1 << 18  # bytes of an answer that are held at once
_WINDOW_S, _LEAST = 60.0, 60_000  # fewer bytes in that time count as a server that has stopped
_MOST_OF_REFUSAL = 1 << 16  # bytes
_HERE = ("localhost", "127.0.0.1", "::1")
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LATER = "Try again later; a second run does what is missing."
T = TypeVar("T")
Data = Callable[[], Iterator[bytes]]


class Passing(Exception):
    """Another try may do better. Its text says what happened, as part of a sentence."""


class AccessError(InputError):
    """Nothing can be had of this server, whatever is asked for: the address, the certificate, or the login is not right."""


class Refused(InputError):
    """A request that the server understood and refused; `status` is HTTP's, `content` the beginning of its answer."""

    def __init__(self, sentence: str, advice: str, status: int, content: bytes = b"") -> None:
        super().__init__(sentence, advice)
        self.status, self.content = status, content


@dataclass(frozen=True)
class Server:
    """base: the address that the standard's paths (/studies, ...) are put behind."""

    base: str

    @classmethod
    def at(cls, base: str, insecure: bool = False) -> Server:
        """Raises AccessError for what is no such address, holds a password, or would send patients' data in the clear (allowed by `insecure`)."""
        place = _split(base)
        if place is None or place.scheme not in ("http", "https") or not place.hostname:
            raise AccessError(f"{base[:100]!r} is no address of a DICOMweb server.", "Write it as https://archive.example.org/dicom-web.")
        if place.username is not None or place.password is not None:
            raise AccessError(f"The address of {place.hostname} holds a user or password.", f"Put them into the netrc file, or into {LOGIN}.")
        if place.query or place.fragment:
            raise AccessError(f"The address of {place.hostname} has more behind its path.", "Leave out what begins with ? or #.")
        if place.scheme == "http" and place.hostname not in _HERE and not insecure:
            raise AccessError(
                f"{place.hostname} is to be asked over http, where everybody on the way can read and change patients' data and the login.",
                "Use its https address, or --insecure in a network where that does not matter.",
            )
        return cls(base.rstrip("/"))

    @property
    def host(self) -> str:
        """As the address has it, with the port where it names one."""
        return urlsplit(self.base).netloc

    @contextmanager
    def answer(
        self, path: str, accept: str, data: Data | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """One try. data: the body of a POST, in pieces. Raises AccessError, Refused, InputError for what else no second try mends, Passing."""
        request = urllib.request.Request(self.base + path, data() if data else None, dict(headers or {}))  # type: ignore[arg-type] # an iterable is taken
        request.add_header("Accept", accept)
        request.add_header("User-Agent", f"sparseseg/{__version__}")
        login = _login(self.host)
        if login is not None:
            request.add_unredirected_header("Authorization", login)
        with self._failures():
            try:
                reply = self._opener().open(request, timeout=TIMEOUT_S)
            except urllib.error.HTTPError as error:
                with error:
                    raise self._refusal(error, login is not None) from None
            with reply:
                if reply.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
                    raise InputError(f"{self.host} packs its answers, though it was asked not to.", "Switch that off in the server or its proxy.")
                yield reply

    def read(self, path: str, accept: str, most: int, data: Data | None = None, headers: Mapping[str, str] | None = None) -> bytes:
        """As `answer`; all of its body, of `most` bytes at most."""
        with self.answer(path, accept, data, headers) as reply:
            content = bytearray()
            for piece in pieces(reply):
                content += piece
                if len(content) > most:
                    raise InputError(f"{self.host} answers with more than {most // 1_000_000} MB where a list is due.", "Ask for less at once.")
            return bytes(content)

    def patiently(self, action: Callable[[], T]) -> T:
        """What action() returns, tried again after a while where it raises Passing. Raises ServerError after the last try."""
        for pause in (*PAUSES_S, None):
            try:
                return action()
            except Passing as reason:
                if pause is None:
                    raise ServerError(f"{self.host} {reason}, in {len(PAUSES_S) + 1} tries.", _LATER) from reason
                time.sleep(pause)
        raise AssertionError  # not reached

    def _opener(self) -> urllib.request.OpenerDirector:
        """Certificates are those that the system trusts, or those of SSL_CERT_FILE. What is on this machine is not asked for through a proxy."""
        proxies = [urllib.request.ProxyHandler({})] if urlsplit(self.base).hostname in _HERE else []
        return urllib.request.build_opener(_Stay, urllib.request.HTTPSHandler(context=ssl.create_default_context()), *proxies)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Of the connection. An error of the work in the block, on its way through, is no failure of it: only what reading can raise is looked at."""
        try:
            yield
        except (InputError, Passing):
            raise
        except urllib.error.URLError as error:
            raise self._broken(error.reason) from error
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            raise self._broken(error) from error

    def _broken(self, reason: object) -> Exception:
        if isinstance(reason, ssl.SSLCertVerificationError):
            return AccessError(
                f"The certificate of {self.host} is not to be trusted ({reason.verify_message}).",
                "Ask who runs the server; SSL_CERT_FILE names a file with certificates of your own.",
            )
        if isinstance(reason, TimeoutError):
            return Passing(f"did not answer for {TIMEOUT_S:.0f} s")
        if isinstance(reason, http.client.IncompleteRead | ConnectionResetError | http.client.RemoteDisconnected | BrokenPipeError):
            return Passing("broke the connection off")
        return Passing(f"cannot be reached ({getattr(reason, 'strerror', None) or type(reason).__name__})")

    def _refusal(self, error: urllib.error.HTTPError, has_login: bool) -> Exception:
        code = error.code
        said = f"{code} {_phrase(code)}".strip()
        if code in _PASSING:
            return Passing(f"could not answer ({said})")
        if 300 <= code < 400:
            other = (_split(error.headers.get("Location", "")) or urlsplit("")).netloc.rpartition("@")[2] or "another path"
            what, advice = f"sends requests on to {other[:100]}, where they were not sent", "If that is meant, give its address instead."
        elif code in (401, 407):
            what = "does not take the login that it was given" if has_login else "wants a login, and none was given"
            return AccessError(
                f"{self.host} {what} ({said}).", f"Set {HOST} and {TOKEN} or {LOGIN} (user:password), or write it into the netrc file."
            )
        elif code == 403:
            what, advice = "does not allow this", "Ask who runs the server for the right to do it."
        elif code in (404, 410):
            what, advice = "has nothing of that address", "Check the address, or query the server again."
        else:
            what, advice = "refuses the request", "Check that the address is that of its DICOMweb service."
        return Refused(f"{self.host} {what} ({said}).", advice, code, _beginning(error))


def pieces(reply: http.client.HTTPResponse) -> Iterator[bytes]:
    """An answer's body as it comes. Raises Passing where it ends early, or hardly comes any more."""
    since, got = time.monotonic(), 0
    while piece := reply.read1(PIECE):
        yield piece
        got += len(piece)
        if (now := time.monotonic()) - since > _WINDOW_S:
            if got < _LEAST:
                raise Passing(f"sent {got} bytes in {now - since:.0f} s")
            since, got = now, 0
    if getattr(reply, "length", None):
        raise Passing("broke the connection off")


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None is followed."""
        return


def _beginning(error: urllib.error.HTTPError) -> bytes:
    with suppress(OSError, http.client.HTTPException):
        return error.read(_MOST_OF_REFUSAL)
    return b""


def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return ""


def _split(address: str) -> SplitResult | None:
    try:
        place = urlsplit(address)
        _ = place.port, place.hostname  # asked for, they may not be understood
        return place if address.isprintable() and " " not in address else None
    except ValueError:
        return None


# ---------------------------------------------------------------- logins


def _login(host: str) -> str | None:
    """The header Authorization for a host; None where there is no login for it. Raises AccessError."""
    token, login = os.environ.get(TOKEN, "").strip(), os.environ.get(LOGIN, "").strip()
    if token or login:
        named = os.environ.get(HOST, "").strip().lower()
        if not named:
            raise AccessError(f"{TOKEN if token else LOGIN} does not say which server it is for.", f"Name its host in {HOST}.")
        if named in (host.lower(), urlsplit(f"//{host}").hostname):
            return _header(f"Bearer {token}") if token else _basic(*login.partition(":")[::2])
    return _of_netrc(host)


def _of_netrc(host: str) -> str | None:
    given = os.environ.get("NETRC")
    try:
        found = netrc.netrc(given).authenticators(urlsplit(f"//{host}").hostname or "")
    except FileNotFoundError as error:
        if given:
            raise AccessError("The netrc file that NETRC names is not there.", "Correct NETRC, or remove it.") from error
        return None
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:  # whose text may hold a password
        line = f", line {error.lineno}" if isinstance(error, netrc.NetrcParseError) and error.lineno else ""
        raise AccessError(f"The netrc file cannot be used{line}.", "Check its form, and that nobody else may read it (chmod 600).") from None
    return _basic(found[0], found[2] or "") if found else None


def _basic(user: str, password: str) -> str:
    return _header("Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii"))


def _header(value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise AccessError("The login holds characters that cannot be sent.", f"Check {TOKEN}, {LOGIN} and the netrc file.")
    return value
