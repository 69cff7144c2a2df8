# SPDX-License-Identifier: MIT
"""Reads the profile file, in which operators write settings for named profiles.

A JSON object holds settings for all profiles of this user, and ``profiles``, an object
of objects, each with settings of its own and perhaps a ``parent`` whose settings it
takes over. This module finds the file, reads it and picks a profile; the settings that
may be in it are in :mod:`aemp_gevent.settings.fields`.

As in AnyEvent::MP, a profile's values hide its parent's, and those hide the ones at the
top of the file. Unlike there, a profile or parent that does not exist is an error.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from aemp_gevent.errors import ProfileError
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.settings.exposure import exposure_of

CONFIG_VARIABLE = "AEMP_CONFIG"
PROFILE_VARIABLE = "AEMP_PROFILE"

DEFAULT_PROFILE = "default"

PROFILES = "profiles"
"""The key of the object that holds the profiles by name."""

PARENT = "parent"
"""A profile's key for the profile whose settings it takes over."""

_log = Log()


@dataclass(frozen=True)
class Layer:
    """Settings from one place.

    Attributes:
        where: The name of the place, for errors.
        values: The values, by the settings' names.
    """

    where: str
    values: Mapping[str, Any] = field(repr=False)  # may include a secret


def default_path(environ: Mapping[str, str]) -> Path | None:
    """Return the path of the profile file if ``AEMP_CONFIG`` is not set; None without a home."""
    home = environ.get("HOME")
    if sys.platform == "darwin":
        return Path(home, "Library", "Application Support", "aemp", "config.json") if home else None
    base = environ.get("XDG_CONFIG_HOME", "")
    if not Path(base).is_absolute():  # the XDG specification says to ignore it then
        if not home:
            return None
        base = str(Path(home, ".config"))
    return Path(base, "aemp", "config.json")


def profile_path(environ: Mapping[str, str]) -> Path | None:
    """Return the path of the profile file, which may not exist; None without a home."""
    given = environ.get(CONFIG_VARIABLE)
    return Path(given) if given else default_path(environ)


def read_profile(name: str | None, environ: Mapping[str, str], secrets: Collection[str]) -> list[Layer]:
    """Return the settings of a profile: its own, its parents', and those for all profiles.

    Args:
        name: The profile. None: the one that ``AEMP_PROFILE`` names, else the one named like
            this host, else the one named ``default``, else none.
        environ: The environment variables.
        secrets: Settings that other users must not be able to read.

    Raises:
        ProfileError: The file cannot be read, is malformed, or others may read the secrets
            in it; or there is no such profile or parent, or a profile is its own ancestor.
    """
    path, content = _read(environ, secrets)
    return layers_of(name, path, content, environ)


def layers_of(name: str | None, path: object, content: Mapping[str, Any], environ: Mapping[str, str]) -> list[Layer]:
    """Return the settings of a profile, as :func:`read_profile` does, of a file that is read already.

    Raises:
        ProfileError: There is no such profile or parent, or a profile is its own ancestor.
    """
    wanted = name if name is not None else environ.get(PROFILE_VARIABLE) or None
    profiles = content.get(PROFILES, {})
    if not isinstance(profiles, dict):
        raise ProfileError(path, f"{quoted(PROFILES)} must be an object of profiles by name")
    chosen = wanted
    if wanted is None:
        from socket import gethostname  # noqa: PLC0415  # not when the package is imported

        chosen = next((default for default in (gethostname(), DEFAULT_PROFILE) if default in profiles), None)
    layers = list(_inherited(chosen, profiles, path)) if chosen is not None else []
    layers.append(Layer(f"profile file {path}", {key: value for key, value in content.items() if key != PROFILES}))
    if wanted is not None:
        # As in AnyEvent::MP. Several processes may run the same profile.
        nodeid = wanted.replace("%", "%%") + "/%u"
        layers.append(Layer(f"profile {quoted(wanted)} of {path}, which sets no node ID", {"nodeid": nodeid}))
    return layers


def _inherited(name: str, profiles: Mapping[str, Any], path: object) -> Iterator[Layer]:
    """Yield a profile's settings and then its ancestors'."""
    seen: list[str] = []
    while True:
        profile = profiles.get(name)
        if profile is None:
            what = (
                f"the parent of profile {quoted(seen[-1])} is {quoted(name)}, which does not exist"
                if seen
                else f"no profile {quoted(name)}"
            )
            nearest = difflib.get_close_matches(name, profiles, n=1)
            hint = f"did you mean {quoted(nearest[0])}?" if nearest else _known(profiles)
            raise ProfileError(path, f"{what}; {hint}")
        if not isinstance(profile, dict):
            raise ProfileError(path, f"profile {quoted(name)} must be an object of settings")
        seen.append(name)
        parent = profile.get(PARENT)
        values = {key: value for key, value in profile.items() if key != PARENT}
        yield Layer(f"profile {quoted(name)} of {path}", values)
        if parent is None:
            return
        if not isinstance(parent, str):
            raise ProfileError(path, f"the parent of {quoted(name)} must be the name of a profile")
        if parent in seen:
            raise ProfileError(path, "profiles inherit in a circle: " + " -> ".join([*seen, parent]))
        name = parent


def _known(profiles: Mapping[str, Any]) -> str:
    if not profiles:
        return "the file has no profiles; 'aemp profile NAME …' makes one"
    return f"there are: {', '.join(profiles)}"


def _read(environ: Mapping[str, str], secrets: Collection[str]) -> tuple[object, dict[str, Any]]:
    """Return the file's path and content."""
    given = environ.get(CONFIG_VARIABLE)
    path = profile_path(environ)
    if path is None:
        return "(none: HOME is not set)", {}
    try:
        with path.open("rb") as file:
            exposure = exposure_of(os.fstat(file.fileno()), path)
            text = file.read()
    except OSError as error:
        if given:
            advice = f"; 'aemp gensecret' creates it, or unset {CONFIG_VARIABLE}"
            advice = advice if isinstance(error, FileNotFoundError) else ""
            raise ProfileError(path, f"{error.strerror or error}; {CONFIG_VARIABLE} names it{advice}") from error
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            # HOME belongs to another user in many daemons, which need not have a file at all.
            _log.warning("profile file %s cannot be read, and is ignored: %s", path, error.strerror or error)
        return path, {}
    content = parse(path, text)
    if exposure and holds(content, secrets):
        raise ProfileError(path, f"it holds a secret, and {exposure}")
    return path, content


def holds(content: Mapping[str, Any], keys: Collection[str]) -> bool:
    """Return whether any of the keys is anywhere in the file, including profiles that are not used."""
    return any(key in keys or (isinstance(value, dict) and holds(value, keys)) for key, value in content.items())


def parse(path: object, text: bytes) -> dict[str, Any]:
    """Return the content of a profile file.

    Raises:
        ProfileError: It is not a JSON object.
    """
    import json  # noqa: PLC0415  # only for programs that have such a file

    if not text.strip():
        return {}  # AEMP_CONFIG=/dev/null: no settings from a file

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
            raise ProfileError(path, f"the key {quoted(twice)} occurs twice")
        return made

    def refuse(constant: str) -> NoReturn:
        raise ProfileError(path, f"{constant} is not JSON")

    content: Any = None
    fault = ""
    try:
        content = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except UnicodeError:
        fault = "it is not encoded in UTF-8"
    except RecursionError:
        fault = "it is nested too deeply"
    except json.JSONDecodeError as error:
        fault = f"it is not JSON: {error}"
    if fault:  # not raised above: those errors carry the whole text, secrets too
        raise ProfileError(path, fault)
    if not isinstance(content, dict):
        raise ProfileError(path, "it must hold one JSON object, {…}")
    return content
