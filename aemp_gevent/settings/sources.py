# SPDX-License-Identifier: MIT
"""Collects settings from the call, the environment, the profile file and the defaults.

Each value is taken from the first of these places that has one. The profile file is read by
:mod:`aemp_gevent.settings.profiles`; which settings there are is in :mod:`aemp_gevent.settings.fields`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from aemp_gevent.errors import NoSecretError, UnknownSettingError
from aemp_gevent.runtime.logs import Log
from aemp_gevent.settings.fields import Setting, Settings, settings_of
from aemp_gevent.settings.profiles import CONFIG_VARIABLE, PROFILE_VARIABLE, Layer, read_profile

PREFIX = "AEMP_"
SECRET_VARIABLE = "AEMP_SECRET"  # noqa: S105  # the name, not the secret

_log = Log()


def make_settings(
    given: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    *,
    profile: str | None = None,
    only_given: Collection[str] = (),
    kind: type[Settings] = Settings,
) -> Settings:
    """Collect a node's settings from the call, the environment and the profile file, and check them all.

    A value of None counts as not given if it is the default, and so does an empty environment
    variable.

    Args:
        given: The settings of the call, by name. Lists may be any iterable of strings.
        environ: The environment variables.
        profile: The profile to take; None: see :func:`~aemp_gevent.settings.profiles.read_profile`.
        only_given: Settings that are taken from the call or not at all.
        kind: The class whose fields are the settings.

    Raises:
        UnknownSettingError: There is no such setting; the text names the nearest one.
        InvalidSettingError: A value has the wrong type or is out of range.
        ProfileError: The profile file or the profile cannot be used.
        NoSecretError: There is neither a secret nor a certificate.
    """
    known = settings_of(kind)
    layers = [Layer("the call", given), *_environment(environ, known)]
    layers += read_profile(profile, environ, [name for name, setting in known.items() if setting.is_secret])
    settings = kind(**{name: value for name, (value, _where) in _collect(layers, known, only_given).items()})
    if not settings.secrets_bytes and not settings.cert:
        raise NoSecretError
    return settings


def _collect(
    layers: Iterable[Layer], known: Mapping[str, Setting], only_given: Collection[str] = ()
) -> dict[str, tuple[Any, str]]:
    """Return the checked value of each setting that is given, and the place that gives it."""
    found: dict[str, tuple[Any, str]] = {}  # Any: of as many types as there are settings
    for index, layer in enumerate(layers):
        for name, value in layer.values.items():
            if name not in known:
                raise UnknownSettingError(name, known, layer.where)
            if value is None and known[name].default is None:
                continue
            checked = known[name].checked(value, layer.where)  # even if an earlier layer hides it
            if index == 0 or name not in only_given:  # the first layer is the call
                found.setdefault(name, (checked, layer.where))
    return found


def effective(layers: Iterable[Layer], environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Return the settings of a node that takes the environment before these layers.

    Returns:
        For each setting its value and the place that gives it; ``""`` for the default.

    Raises:
        UnknownSettingError, InvalidSettingError: A setting is wrong, even if another place hides it.
    """
    known = settings_of(Settings)
    found = _collect([*_environment(environ, known), *layers], known)
    return {name: found.get(name, (setting.default, "")) for name, setting in known.items()}


def setting_names() -> list[str]:
    """Return the names of all settings."""
    return list(settings_of(Settings))


def secret_names() -> list[str]:
    """Return the settings that must not be shown."""
    return [name for name, setting in settings_of(Settings).items() if setting.is_secret]


def check_name(name: str, where: str) -> None:
    """Raise if there is no such setting.

    Raises:
        UnknownSettingError: There is none; the text names the nearest one.
    """
    _named(name, where)


def check_setting(name: str, value: object, where: str) -> None:
    """Raise if a setting cannot have this value.

    Raises:
        UnknownSettingError: There is no such setting.
        InvalidSettingError: It cannot.
    """
    _named(name, where).checked(value, where)


def read_setting(name: str, text: str, where: str) -> Any:  # of as many types as there are settings
    """Return the value that a text gives a setting, read as from the environment; not checked yet.

    Raises:
        UnknownSettingError: There is no such setting.
        InvalidSettingError: It cannot be read.
    """
    return _named(name, where).read(text, where)


def _named(name: str, where: str) -> Setting:
    known = settings_of(Settings)
    if name not in known:
        raise UnknownSettingError(name, known, where)
    return known[name]


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def _environment(environ: Mapping[str, str], known: Mapping[str, Setting]) -> Iterator[Layer]:
    """Yield a layer for each variable, so that errors name it."""
    settings = {variable_of(name): setting for name, setting in known.items()}
    names = [*settings, CONFIG_VARIABLE, PROFILE_VARIABLE]
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or not text:
            continue
        if variable in settings:
            where = f"environment variable {variable}"
            yield Layer(where, {settings[variable].name: settings[variable].read(text, where)})
        elif variable not in names:
            # Not every unknown one: Kubernetes sets AEMP_PORT and others for a service named aemp.
            if difflib.get_close_matches(variable, names, n=1, cutoff=_MISSPELT):
                raise UnknownSettingError(variable, names, "the environment")
            _log.debug("the environment variable %s does not name a setting, and is ignored", variable)


_MISSPELT = 0.88
"""A variable that is this similar to a setting's counts as misspelt. Kubernetes' AEMP_SERVICE_HOST has 0.87."""
