"""A minimal client of the API server: one token, JSON in, JSON out, TLS verified."""

from __future__ import annotations

import http.client
import json
import ssl
import weakref
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 10.0


class ApiError(Exception):
    """The API server answered, with an error."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        """Keep what a Kubernetes Status says: HTTP code, CamelCase reason, message."""
        self.code = code
        self.reason = reason
        super().__init__(f"{code} {reason}: {message}")


class Api:
    """Calls to one API server as one user; threads may share it.

    GET requests reuse connections, because tests poll and each TLS handshake costs milliseconds of
    CPU time. Other requests take a new connection each, so that none of them is ever sent twice.
    """

    def __init__(self, server_url: str, ca_file: Path, token: str) -> None:
        """Trust the certificates that `ca_file` signed, and no others; use no proxy."""
        address = urlsplit(server_url)
        self._address = (address.hostname or "", address.port)
        self._context = ssl.create_default_context(cafile=str(ca_file))
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept": "application/json, */*",
        }
        self._idle: list[http.client.HTTPSConnection] = []
        weakref.finalize(self, _close_all, self._idle)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Send one request and return the decoded answer; a plain text answer as a string.

        Args:
            method: GET, POST, PUT or DELETE.
            path: from the root, as in "/api/v1/namespaces".
            body: sent as JSON unless None.
        Raises:
            ApiError: the server answered with an error status.
            OSError: it did not answer (refused, cut, bad certificate, no answer in 10 s).
        """
        sent = None if body is None else json.dumps(body)
        while method == "GET" and self._idle:
            try:
                return self._exchange(self._idle.pop(), method, path, sent)
            except TimeoutError:
                raise
            except (IndexError, OSError):  # another thread took it, or the server has closed it
                continue
        connection = http.client.HTTPSConnection(
            *self._address, timeout=TIMEOUT_S, context=self._context
        )
        return self._exchange(connection, method, path, sent)

    def _exchange(
        self, connection: http.client.HTTPSConnection, method: str, path: str, body: str | None
    ) -> Any:
        is_kept = False
        try:
            connection.request(method, path, body, self._headers)
            with connection.getresponse() as response:
                answer = _decoded(response.headers.get_content_type(), response.read())
                is_kept = method == "GET" and not response.will_close
        except http.client.HTTPException as error:  # closed before or within the answer
            raise ConnectionError(f"{method} {path}: {error!r}") from error
        finally:
            if is_kept:
                self._idle.append(connection)
            else:
                connection.close()
        if response.status < HTTPStatus.BAD_REQUEST:
            return answer
        status = answer if isinstance(answer, dict) else {"message": str(answer)}
        reason = status.get("reason", response.reason)
        raise ApiError(response.status, reason, status.get("message", ""))


def _close_all(connections: list[http.client.HTTPSConnection]) -> None:
    for connection in connections:
        connection.close()


def _decoded(content_type: str, answer: bytes) -> Any:
    return json.loads(answer) if content_type == "application/json" else answer.decode()
