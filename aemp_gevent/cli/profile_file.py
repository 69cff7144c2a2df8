# SPDX-License-Identifier: MIT
"""The profile file, changed by commands: all changes of a command line are made, or none.

A command holds a lock from reading to writing, so that two commands at the same time do not lose each other's
changes. The file is replaced atomically: readers see the old or the new content, even if the command is killed. The
previous content remains as ``config.json~``, as with AnyEvent::MP. :mod:`aemp_gevent.settings.profiles` and
:mod:`aemp_gevent.settings.fields` define what the file can contain.
"""

from __future__ import annotations

import copy
import difflib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from aemp_gevent.cli.private_files import OURS_ALONE, write_private
from aemp_gevent.errors import AempError, ProfileError
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.settings import sources as settings
from aemp_gevent.settings.exposure import exposure_of
from aemp_gevent.settings.profiles import PARENT, PROFILES, holds, layers_of, parse, profile_path


class ProfileFile:
    """This user's profile file, for reading and changing.

    Args:
        environ: The environment variables, which determine its path.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = profile_path(environ)
        if path is None:
            raise click.ClickException("the path of the profile file is unknown: set HOME or AEMP_CONFIG")
        self.path = path
        self.profile: str | None = None
        """The profile that is being changed; None: the settings for all profiles."""
        self.is_rehearsal = False
        """Whether to write nothing at the end."""
        self.notes: list[str] = []
        """Texts that say what was changed, printed when it is written."""
        self._content: dict[str, Any] | None = None
        self._original: dict[str, Any] = {}
        self._text: bytes | None = None
        self._status: os.stat_result | None = None
        self._lock: int | None = None

    # --- reading ---

    @property
    def content(self) -> dict[str, Any]:
        """The file's content, with the changes made so far.

        Raises:
            ProfileError: It cannot be read, or is malformed.
        """
        if self._content is None:
            self._read()
        assert self._content is not None
        return self._content

    @property
    def profiles(self) -> dict[str, dict[str, Any]]:
        """The profiles by name."""
        found: Any = self.content.get(PROFILES, {})
        if not isinstance(found, dict) or not all(isinstance(profile, dict) for profile in found.values()):
            raise ProfileError(
                self.path, f"{quoted(PROFILES)} must be an object of profiles by name, each an object of settings"
            )
        return found

    def existing(self, name: str) -> dict[str, Any]:
        """Return a profile's own settings.

        Raises:
            click.UsageError: The profile does not exist.
        """
        if name not in self.profiles:
            nearest = difflib.get_close_matches(name, self.profiles, n=1)
            hint = (
                f"did you mean {quoted(nearest[0])}?" if nearest else f"there are: {', '.join(self.profiles) or 'none'}"
            )
            raise click.UsageError(f"profile {quoted(name)} does not exist; {hint}")
        return self.profiles[name]

    @property
    def was_exposed(self) -> bool:
        """Whether others could read a secret in the file when it was read."""
        status = self._status
        return (
            status is not None
            and bool(exposure_of(status, self.path))
            and holds(self._original, settings.secret_names())
        )

    def _read(self) -> None:
        try:
            with self.path.open("rb") as file:
                self._status = os.fstat(file.fileno())
                self._text = file.read()
        except FileNotFoundError:
            self._status, self._text = None, None
        except OSError as error:
            raise ProfileError(self.path, error.strerror or str(error)) from error
        self._content = parse(self.path, self._text or b"")
        self._original = copy.deepcopy(self._content)

    # --- changing ---

    def section(self) -> dict[str, Any]:
        """Return the settings that are being changed: the profile's, or those for all profiles. Locks the file."""
        if self._lock is None and not self.is_rehearsal:
            self._take_lock()
            self._read()  # another command may have written it since it was read
        if self.profile is None:
            return self.content
        if self.profile not in self.profiles:
            self.content.setdefault(PROFILES, {})[self.profile] = {}
            self.notes.append(f"{quoted(self.profile)} is a new profile")
        return self.profiles[self.profile]

    @property
    def was_asked_to_change(self) -> bool:
        """Whether a command has requested settings in order to change them."""
        return self._lock is not None

    def note(self, text: str) -> None:
        """Add a text about a change of the section, printed when it is written."""
        self.notes.append(f"{self.profile}: {text}" if self.profile is not None else text)

    def _take_lock(self) -> None:
        path = self._target
        if path.exists() and not path.is_file():
            raise ProfileError(self.path, "it is not a file; name the file to write to")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The lock file is never removed, because another command may be waiting for it.
            lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OURS_ALONE)
        except OSError as error:
            raise ProfileError(self.path, f"it cannot be changed: {error.strerror or error}") from error
        fcntl.flock(lock, fcntl.LOCK_EX)
        self._lock = lock

    @property
    def _target(self) -> Path:
        """The file itself, if the path is a link to it."""
        return Path(os.path.realpath(self.path))

    def commit(self) -> bool:
        """Check the changes, and write them; return whether there were any.

        Raises:
            click.UsageError: The changes make the file invalid for nodes.
            ProfileError: It cannot be written.
        """
        if self._lock is None or self.content == self._original:
            return False
        before = set(_problems(self.path, self._original))
        for problem in _problems(self.path, self.content):
            if problem not in before:  # earlier problems do not count, so that they can be fixed one by one
                raise click.UsageError(problem)
        text = json.dumps(self.content, indent=2, ensure_ascii=False) + "\n"
        path = self._target
        try:
            if self._text is not None:
                write_private(path.with_name(path.name + "~"), self._text, self._status)
            write_private(path, text.encode("utf-8", "surrogateescape"), self._status)
        except OSError as error:
            raise ProfileError(self.path, f"it cannot be written: {error.strerror or error}") from error
        return True

    def close(self) -> None:
        """Unlock the file. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _problems(path: Path, content: Mapping[str, Any]) -> list[str]:
    """Return the problems in a profile file because of which a node would refuse it."""
    found: list[str] = []
    profiles = content.get(PROFILES, {})
    named = profiles if isinstance(profiles, dict) else {}
    sections: list[tuple[str, Any]] = [(f"profile file {path}", {k: v for k, v in content.items() if k != PROFILES})]
    for name, profile in named.items():
        values = {key: value for key, value in profile.items() if key != PARENT} if isinstance(profile, dict) else {}
        sections.append((f"profile {quoted(name)} of {path}", values))
        try:
            layers_of(name, path, content, {})
        except AempError as error:
            found.append(str(error))
    for where, values in sections:
        for key, value in values.items():
            try:
                settings.check_setting(key, value, where)
            except AempError as error:
                found.append(str(error))
    return found
