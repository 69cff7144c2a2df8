# SPDX-License-Identifier: MIT
"""``aemp import-perl``: import the configuration that AnyEvent::MP's own ``aemp`` writes.

That is a JSON object of settings for all profiles, in which ``profile`` is an object of profiles. Most names and
meanings are the same here. Settings that differ, or make no sense for Python, are reported and left out.

Source:
    AnyEvent::MP 2.01, ``AnyEvent::MP::Config`` and the manual of ``aemp``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from aemp_gevent.addresses.ids import ANON_PREFIX
from aemp_gevent.cli.output import json_option, print_json, print_table
from aemp_gevent.cli.profile_file import ProfileFile
from aemp_gevent.cli.set_up import finish, profile_file
from aemp_gevent.errors import AempError, ProfileError
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.settings import sources as settings
from aemp_gevent.settings.profiles import PARENT
from aemp_gevent.wire.credentials import Credentials

_VARIABLE = "PERL_ANYEVENT_MP_RC"
_FILE = ".perl-anyevent-mp"

_PROFILES = "profile"


class NotImportable(Exception):
    """A Perl setting has no counterpart; the text says why."""


class _Taken(NamedTuple):
    """An imported setting.

    Attributes:
        value: Its value here.
        remark: A remark for the user.
    """

    value: Any
    remark: str = ""


# --- conversions of the settings ------------------------------------------------------------------------


def _same(value: Any) -> _Taken:
    return _Taken(value)


def _nodeid(value: Any) -> _Taken:
    text = str(value)
    if text.startswith(ANON_PREFIX):
        raise NotImportable("nodes of a profile without a node ID are named after the profile and a random word")
    if text.endswith("/"):
        return _Taken(text + "%u", "%u stands for the random word that Perl adds")
    return _Taken(text)


def _endpoints(value: Any) -> _Taken:
    items = value if isinstance(value, list) else str(value).split(",")
    return _Taken([f"{item[:-2]}:0" if str(item).endswith(":*") else str(item) for item in items])


def _cert(value: Any) -> _Taken:
    Credentials(str(value).encode())
    return _Taken(str(value))


def _seconds(value: Any) -> _Taken:
    try:
        return _Taken(float(value))
    except (TypeError, ValueError):
        raise NotImportable(f"it is not a number: {quoted(value)}") from None


def _secure(value: Any) -> _Taken:
    if value in (None, "", "0", 0, False):
        return _Taken(False)
    remark = (
        "" if value in ("1", 1, True) else "Perl calls a function, which is not possible here; see the setting 'rules'"
    )
    return _Taken(True, remark)


def _services(value: Any) -> _Taken:
    items: list[Any] = value if isinstance(value, list) else str(value).split(",")
    kept = [item for item in items if "::" not in str(item[0] if isinstance(item, list) and item else item)]
    perl = [item for item in items if item not in kept]
    if not kept and perl:
        raise NotImportable(f"Perl code cannot run here: {', '.join(map(_service, perl))}")
    return _Taken(kept, f"without Perl code: {', '.join(map(_service, perl))}" if perl else "")


def _service(item: Any) -> str:
    return json.dumps(item) if isinstance(item, list) else str(item)


def _without(why: str) -> Callable[[Any], _Taken]:
    def refuse(_value: Any) -> _Taken:
        raise NotImportable(why)

    return refuse


_SETTINGS: dict[str, Callable[[Any], _Taken]] = {
    "nodeid": _nodeid,
    "secret": _same,
    "cert": _cert,
    "seeds": _endpoints,
    "binds": _endpoints,
    "services": _services,
    "monitor_timeout": _seconds,
    "secure": _secure,
    PARENT: _same,
    "connect_interval": _without("nodes choose the time between two attempts themselves"),
    "framing_format": _without("nodes offer all framings that they support"),
    "auth_offer": _without("with a certificate it is TLS, with a secret HMAC; require_tls makes it TLS alone"),
    "auth_accept": _without("with a certificate it is TLS, with a secret HMAC; require_tls makes it TLS alone"),
    "autocork": _without("nodes always send queued messages together"),
    "nodelay": _without("connections always have it"),
}

_ABOUT_THE_FILE = {"version", "dirty", _PROFILES}


# --- the command -------------------------------------------------------------------------


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@click.option("--overwrite", is_flag=True, help="Replace settings that exist here already.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@json_option
@click.pass_context
def import_perl(ctx: click.Context, file: Path | None, overwrite: bool, dry_run: bool, as_json: bool) -> None:
    """Import the configuration of AnyEvent::MP: secret, certificate, profiles, parents, seeds and binds.

    The default FILE is the one that PERL_ANYEVENT_MP_RC names, or ~/.perl-anyevent-mp. It is only read. Settings
    without a counterpart here, and those that are set differently here already, are reported and left out.
    """
    path = file or Path(os.environ.get(_VARIABLE) or Path.home() / _FILE)
    source = _read(path)
    target = profile_file(ctx)
    target.is_rehearsal = dry_run
    rows = _take_all(target, source, overwrite)
    target.notes.clear()  # the table is more detailed
    if as_json:
        print_json(rows)
    else:
        print_table(rows, ("profile", "setting", "what"), empty=f"{path} sets nothing")
    if not dry_run:
        if as_json:
            target.commit()
        else:
            finish(ctx)


def _take_all(target: ProfileFile, source: Mapping[str, Any], overwrite: bool) -> list[dict[str, Any]]:
    sections: list[tuple[str | None, Any]] = [(None, source), *dict(source.get(_PROFILES, {})).items()]
    rows: list[dict[str, Any]] = []
    for name, values in sections:
        target.profile = name
        section = target.section()
        if not values:
            rows.append(
                {"profile": name, "setting": "", "taken": True, "what": "imported, without settings of its own"}
            )
        for key, value in values.items():
            if name is None and key in _ABOUT_THE_FILE:
                continue
            is_taken, what = _take(section, key, value, overwrite)
            rows.append({"profile": name, "setting": key, "taken": is_taken, "what": what})
    return rows


def _take(section: dict[str, Any], key: str, value: Any, overwrite: bool) -> tuple[bool, str]:
    """Import a setting; return whether that was possible, and a text that says what was done."""
    convert = _SETTINGS.get(key, _without("unknown setting"))
    try:
        taken = convert(value)
        if key == PARENT and not isinstance(taken.value, str):
            raise NotImportable("not the name of a profile")
        if key != PARENT:
            settings.check_setting(key, taken.value, "")
    except (NotImportable, AempError) as error:
        return False, f"left out: {error}"
    shown = "" if key in settings.secret_names() else f": {json.dumps(taken.value, ensure_ascii=False)}"
    if key in section and section[key] != taken.value and not overwrite:
        return False, "left out: set differently here already; replace that with --overwrite"
    section[key] = taken.value
    return True, f"imported{shown}" + (f" ({taken.remark})" if taken.remark else "")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror or error}") from error
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        why = f"{error}; remove comments and commas before closing brackets"
        raise ProfileError(path, f"it is not JSON: {why}") from None
    profiles = content.get(_PROFILES, {}) if isinstance(content, dict) else None
    if not isinstance(profiles, dict) or not all(isinstance(profile, dict) for profile in profiles.values()):
        raise ProfileError(path, "it must be an object of settings, with profiles by name in 'profile'")
    assert isinstance(content, dict)
    return content
