# SPDX-License-Identifier: MIT
"""The commands that change the profile file, such as ``setnodeid`` and ``addseed``, as in AnyEvent::MP's ``aemp``.

They can follow one another on a command line, and each takes as many arguments as it needs. They change the settings
for all profiles, or, after ``profile NAME``, those of that profile. All of them are checked before anything is written.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click

from aemp_gevent.cli.arguments import parse_value
from aemp_gevent.cli.completion import profile_names, setting_names
from aemp_gevent.cli.output import echo
from aemp_gevent.cli.profile_file import ProfileFile
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.settings import sources as settings
from aemp_gevent.settings.profiles import PARENT, PROFILES

P = ParamSpec("P")

_WHERE = "the command line"


def profile_file(ctx: click.Context) -> ProfileFile:
    """Return the profile file that all commands of this command line change."""
    root = ctx.find_root()
    file: Any = root.obj
    if file is None:
        file = root.obj = ProfileFile()
        root.call_on_close(file.close)
    assert isinstance(file, ProfileFile)
    return file


def changes(function: Callable[Concatenate[ProfileFile, P], None]) -> Callable[P, None]:
    """Pass the profile file to a command's function as its first argument."""

    def with_file(*args: P.args, **kwargs: P.kwargs) -> None:
        function(profile_file(click.get_current_context()), *args, **kwargs)

    return update_wrapper(with_file, function)


def finish(ctx: click.Context) -> None:
    """Write the changes of all commands, and print them."""
    file = profile_file(ctx)
    if file.commit():
        for note in file.notes:
            echo(note)
        echo(f"wrote {file.path}")
        if file.was_exposed:
            echo(
                "aemp: other users could read the secret in this file until now; you should make a new secret", err=True
            )
    elif file.was_asked_to_change:
        echo("nothing to change")


def set_value(file: ProfileFile, name: str, value: Any) -> None:
    """Check a setting, and set it."""
    settings.check_setting(name, value, _WHERE)
    file.section()[name] = value
    file.note(f"{name} is set" if name in settings.secret_names() else f"{name} = {json.dumps(value)}")


def _delete(file: ProfileFile, name: str) -> None:
    if file.section().pop(name, None) is not None:
        file.note(f"{name} is removed")


def _items(text: str) -> list[Any]:
    """Return the items of a list that is given as JSON, or separated by commas."""
    if text.startswith("["):
        try:
            value = parse_value(text)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        return list(value)
    return [item.strip() for item in text.split(",") if item.strip()]


def _own_list(file: ProfileFile, name: str) -> list[Any]:
    value = file.section().get(name)
    return list(value) if isinstance(value, list) else []


def _add(file: ProfileFile, name: str, item: Any, *, repeated: bool = False) -> None:
    items = [other for other in _own_list(file, name) if repeated or other != item]
    set_value(file, name, [*items, item])


def _remove(file: ProfileFile, name: str, item: Any) -> None:
    items = _own_list(file, name)
    if item not in items:
        where = f"of profile {quoted(file.profile)}" if file.profile is not None else "for all profiles"
        there = ", ".join(map(str, items)) or "none"
        raise click.UsageError(f"{quoted(item)} is not one of the {name} {where}; there are: {there}")
    items.remove(item)
    set_value(file, name, items)


# --- node ID, secret, certificate --------------------------------------------------------


@click.command()
@click.argument("nodeid")
@changes
def setnodeid(file: ProfileFile, nodeid: str) -> None:
    """Set the node ID: a name, or a noderef, which is also the address to listen on.

    %n stands for the host's name, %u for a word that is different in each process.
    """
    set_value(file, "nodeid", nodeid)


@click.command()
@changes
def delnodeid(file: ProfileFile) -> None:
    """Remove the node ID, which is inherited or made up then."""
    _delete(file, "nodeid")


@click.command()
@changes
def gensecret(file: ProfileFile) -> None:
    """Generate a secret. All nodes of a network need the same one."""
    set_value(file, "secret", secrets.token_urlsafe(32))


@click.command()
@click.argument("secret")
@changes
def setsecret(file: ProfileFile, secret: str) -> None:
    """Set the secret that all nodes of the network share.

    Command lines are visible in process listings, so give "-" to read the secret from standard input.
    To change the secret without stopping the network, give both for a while, as a JSON list: '["new", "old"]'.
    """
    text = sys.stdin.readline().strip() if secret == "-" else secret  # noqa: S105  # no secret, a place
    if not text:
        raise click.UsageError("the secret is empty; give one, or run 'aemp gensecret'")
    set_value(file, "secret", settings.read_setting("secret", text, _WHERE))


@click.command()
@changes
def delsecret(file: ProfileFile) -> None:
    """Remove the secret, which is inherited then, or not set."""
    _delete(file, "secret")


@click.command()
@click.argument("file_name", metavar="FILE")
@changes
def setcert(file: ProfileFile, file_name: str) -> None:
    """Set the file with the node's certificate and its key, in PEM format and with mode 0600.

    The node reads the file again when it changes.
    """
    # Imported only where needed, because OpenSSL takes long to import.
    from aemp_gevent.transport.certificates import Certificate  # noqa: PLC0415

    path = str(Path(file_name).expanduser().absolute())
    Certificate(path)
    set_value(file, "cert", path)


@click.command()
@changes
def delcert(file: ProfileFile) -> None:
    """Remove the certificate, which is inherited then, or not set."""
    _delete(file, "cert")


# --- seeds -------------------------------------------------------------------------------


@click.command()
@click.argument("noderef")
@changes
def addseed(file: ProfileFile, noderef: str) -> None:
    """Add a seed: a node that this one links to when it starts."""
    _add(file, "seeds", noderef)


@click.command()
@click.argument("noderef")
@changes
def delseed(file: ProfileFile, noderef: str) -> None:
    """Remove a seed."""
    _remove(file, "seeds", noderef)


@click.command()
@click.argument("noderefs")
@changes
def setseeds(file: ProfileFile, noderefs: str) -> None:
    """Set all seeds, separated by commas; '' means no seeds."""
    set_value(file, "seeds", _items(noderefs))


@click.command()
@changes
def delseeds(file: ProfileFile) -> None:
    """Remove all seeds, which are inherited then, or not set."""
    _delete(file, "seeds")


# --- binds -------------------------------------------------------------------------------


@click.command()
@click.argument("endpoint")
@changes
def addbind(file: ProfileFile, endpoint: str) -> None:
    """Add an address to listen on: host:port; host '*' means all interfaces, port 0 any free port."""
    _add(file, "binds", endpoint)


@click.command()
@click.argument("endpoint")
@changes
def delbind(file: ProfileFile, endpoint: str) -> None:
    """Remove an address to listen on."""
    _remove(file, "binds", endpoint)


@click.command()
@click.argument("endpoints")
@changes
def setbinds(file: ProfileFile, endpoints: str) -> None:
    """Set all addresses to listen on, separated by commas; '' means not to listen."""
    set_value(file, "binds", _items(endpoints))


@click.command()
@changes
def delbinds(file: ProfileFile) -> None:
    """Remove all addresses to listen on, which are inherited then, or follow from the node ID."""
    _delete(file, "binds")


# --- services ----------------------------------------------------------------------------


@click.command()
@click.argument("service")
@changes
def addservice(file: ProfileFile, service: str) -> None:
    """Add a service: a module to import, or a function to run in a port of its own.

    A function with arguments is a JSON list: '["shop.workers.work", 4]'. A service that is added twice runs twice.
    """
    _add(file, "services", _service(service), repeated=True)


@click.command()
@click.argument("service")
@changes
def delservice(file: ProfileFile, service: str) -> None:
    """Remove a service; if it was added twice, one of them remains."""
    _remove(file, "services", _service(service))


@click.command()
@click.argument("services")
@changes
def setservices(file: ProfileFile, services: str) -> None:
    """Set all services, separated by commas, or as a JSON list; '' means no services."""
    set_value(file, "services", _items(services))


@click.command()
@changes
def delservices(file: ProfileFile) -> None:
    """Remove all services, which are inherited then, or not set."""
    _delete(file, "services")


def _service(text: str) -> Any:
    return _items(text) if text.startswith("[") else text


# --- any other setting -------------------------------------------------------------------


@click.command("set")
@click.argument("name", shell_complete=setting_names)
@click.argument("value")
@changes
def set_(file: ProfileFile, name: str, value: str) -> None:
    """Set any setting. Values are written as in environment variables.

    The reference page on settings lists all of them with their units and defaults.
    """
    set_value(file, name, _plain(settings.read_setting(name, value, _WHERE)))


@click.command("del")
@click.argument("name", shell_complete=setting_names)
@changes
def del_(file: ProfileFile, name: str) -> None:
    """Remove any setting, which is inherited then, or has its default."""
    settings.check_name(name, _WHERE)
    _delete(file, name)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


# --- profiles ----------------------------------------------------------------------------


@click.command()
@click.argument("name", shell_complete=profile_names)
@changes
def profile(file: ProfileFile, name: str) -> None:
    """Apply the following commands to a profile, which is created if it does not exist."""
    file.profile = name
    file.section()


@click.command()
@click.argument("name", shell_complete=profile_names)
@changes
def setparent(file: ProfileFile, name: str) -> None:
    """Set the profile's parent, from which it inherits all settings that it does not set itself."""
    if file.profile is None:
        raise click.UsageError("only profiles have parents; put 'profile NAME' before 'setparent'")
    file.section()[PARENT] = name
    file.note(f"parent = {name}")


@click.command()
@changes
def delparent(file: ProfileFile) -> None:
    """Remove the profile's parent: it inherits only the settings for all profiles then."""
    _delete(file, PARENT)


@click.command()
@click.argument("name", shell_complete=profile_names)
@changes
def delprofile(file: ProfileFile, name: str) -> None:
    """Delete a profile."""
    file.section()
    file.existing(name)
    del file.content[PROFILES][name]
    file.notes.append(f"profile {quoted(name)} is deleted")
