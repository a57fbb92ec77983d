"""A minimal client of the API server: one token, JSON in, JSON out, TLS verified."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

TIMEOUT_S = 10.0


class ApiError(Exception):
    """The API server answered, with an error."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        """Keep what a Kubernetes Status says: HTTP code, CamelCase reason, message."""
        self.code = code
        self.reason = reason
        super().__init__(f"{code} {reason}: {message}")


class Api:
    """Calls to one API server as one user."""

    def __init__(self, server_url: str, ca_file: Path, token: str) -> None:
        """Trust the certificates that `ca_file` signed, and no others."""
        self._server_url = server_url
        self._token = token
        # An opener of its own: the default one would send loopback calls to a configured proxy.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca_file))),
        )

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
        request = urllib.request.Request(
            self._server_url + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
                "Accept": "application/json, */*",
            },
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                return _decoded(response.headers.get_content_type(), response.read())
        except urllib.error.HTTPError as error:
            with error:
                answer = _decoded(error.headers.get_content_type(), error.read())
            status = answer if isinstance(answer, dict) else {"message": str(answer)}
            reason = status.get("reason", error.reason)
            raise ApiError(error.code, reason, status.get("message", "")) from None
        except http.client.HTTPException as error:  # cut in the middle of an answer
            raise ConnectionError(f"{method} {path}: {error!r}") from error


def _decoded(content_type: str, answer: bytes) -> Any:
    return json.loads(answer) if content_type == "application/json" else answer.decode()
