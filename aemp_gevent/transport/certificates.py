# SPDX-License-Identifier: MIT
"""Reads certificates from files, checks them, and reads them again when they have changed.

A setting names a PEM file, or is the PEM text itself. A key that other users may read is
refused, like a secret in a profile file. The texts are parsed by
:mod:`aemp_gevent.wire.credentials`, the file to read next.
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
"""The longest path shown in errors. A file with an elliptic key and its certificate has 1,100 characters of base64."""

_Stamp = tuple[object, ...]

_log = Log()


class Certificate:
    """The certificate with which a node proves itself; always the newest.

    Args:
        cert: The setting ``cert``: the path of a PEM file, or PEM text.
        ca: The setting ``ca``: the same, or None.

    Raises:
        CertificateError: It cannot be used: it is unreadable, readable for other users, broken, or expired.
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
        """Return it, read again if a file has changed. Does not raise: an unusable new one is logged."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp  # also that of a broken one, which is logged once
            try:
                self._credentials = self._load()
            except CertificateError as error:
                _log.error("the new certificate cannot be used, keeping the old one: %s", error)
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
    """A setting that is a PEM text, or names a file with one.

    Args:
        name: The name of the setting.
        value: The value of the setting.
        is_secret: Whether other users must not be able to read the file.
    """

    def __init__(self, name: str, value: str, *, is_secret: bool) -> None:
        self._text = value.encode() if not value or "-----BEGIN" in value else None
        self._path = Path(value)
        self._is_secret = is_secret
        # A key without its first line, or in base64 once more, is not a path, and must not be shown.
        self._may_be_path = self._text is None and value.isprintable() and len(value) <= _LONGEST_PATH
        self.where = f"{name} file {self._path}" if self._may_be_path else f"setting {quoted(name)}"

    def stamp(self) -> _Stamp | None:
        """Return a value that changes when the file does."""
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
            CertificateError: The file cannot be read, or other users may read it.
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
