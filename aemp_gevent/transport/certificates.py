# SPDX-License-Identifier: MIT
"""Certificates in files: read, checked, and read again when they have changed.

A setting names a PEM file, or is the PEM text itself. A key that others may read is
refused, as the secret in a profile file is. What the texts mean :mod:`aemp_gevent.wire.credentials`
knows, which is the file to read next.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

from aemp_gevent.errors import CertificateError
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.settings.exposure import exposure_of
from aemp_gevent.wire.credentials import Credentials

_WARN_BEFORE = timedelta(days=14)
_WARN_AGAIN = timedelta(days=1)

_LONGEST_PATH = 255
"""Of those that are shown in errors. A file with an elliptic key and its certificate is 1,100 characters of base64."""

_Stamp = tuple[object, ...]

_log = Log()


class Certificate:
    """What a node proves who it is with; always the newest.

    Args:
        cert: The setting: a PEM file's path, or PEM text.
        ca: The setting: another of either, or None.

    Raises:
        CertificateError: It cannot be used: unreadable for us, readable for others, broken, or expired.
    """

    def __init__(self, cert: str, ca: str | None = None) -> None:
        self._cert = _Source("cert", cert, is_secret=True)
        self._ca = _Source("ca", ca or "", is_secret=False)
        self._stamp = self._look()
        self._credentials = self._load()
        self._warned: tuple[Credentials, datetime] | None = None
        self._warn_in_time()

    def __repr__(self) -> str:
        return f"<Certificate {quoted(self._credentials)}>"

    def current(self) -> Credentials:
        """Return it, read again if a file has changed. Does not raise: a new one that cannot be used is logged."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp  # also of a broken one, which is told of once
            try:
                self._credentials = self._load()
            except CertificateError as error:
                _log.error("the new certificate cannot be used, going on with the old one: %s", error)
            else:
                _log.info("read the new certificate: %s", self._credentials)
        self._warn_in_time()
        return self._credentials

    def _look(self) -> _Stamp:
        return self._cert.stamp(), self._ca.stamp()

    def _load(self) -> Credentials:
        credentials = Credentials(self._cert.read(), self._ca.read(), self._cert.where)
        now = _now()
        begin, end = credentials.certificate.not_valid_before_utc, credentials.certificate.not_valid_after_utc
        if now >= end:
            raise CertificateError(self._cert.where, f"the certificate expired on {end:%Y-%m-%d %H:%M} UTC")
        if now < begin:
            text = f"the certificate is valid only from {begin:%Y-%m-%d %H:%M} UTC on; is the clock right?"
            raise CertificateError(self._cert.where, text)
        return credentials

    def _warn_in_time(self) -> None:
        now, end = _now(), self._credentials.certificate.not_valid_after_utc
        if end - now >= _WARN_BEFORE:
            return
        which, when = self._warned or (None, now)
        if which is not self._credentials or now - when >= _WARN_AGAIN:
            self._warned = self._credentials, now
            said = "expired" if now >= end else "expires"
            _log.warning("%s: the certificate %s on %s UTC", self._cert.where, said, f"{end:%Y-%m-%d %H:%M}")


def _now() -> datetime:
    return datetime.now(timezone.utc)


class _Source:
    """Where a PEM text is.

    Args:
        name: The setting's.
        value: The setting.
        is_secret: Whether nobody else may read the file.
    """

    def __init__(self, name: str, value: str, *, is_secret: bool) -> None:
        self._text = value.encode() if not value or "-----BEGIN" in value else None
        self._path = Path(value)
        self._is_secret = is_secret
        # A key whose first line was lost, or that is in base64 once more, is no path to be shown.
        self._may_be_path = self._text is None and value.isprintable() and len(value) <= _LONGEST_PATH
        self.where = f"{name} file {self._path}" if self._may_be_path else f"setting {quoted(name)}"

    def stamp(self) -> _Stamp | None:
        """Return something that is another when the file is."""
        if self._text is not None:
            return None
        try:
            status = self._path.stat()
        except (OSError, ValueError):
            return ()
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode

    def read(self) -> bytes:
        """Return the text.

        Raises:
            CertificateError: The file cannot be read, or others may read it.
        """
        if self._text is not None:
            return self._text
        try:
            with self._path.open("rb") as file:
                exposure = exposure_of(os.fstat(file.fileno()), self._path)
                text = file.read()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            if not self._may_be_path:
                why = f"it is neither the path of a file nor text in PEM form ({why})"
            raise CertificateError(self.where, why) from None
        if self._is_secret and exposure:
            raise CertificateError(self.where, f"it holds a private key, and {exposure}")
        return text
