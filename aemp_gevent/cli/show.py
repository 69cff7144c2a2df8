# SPDX-License-Identifier: MIT
"""``aemp showconfig`` and ``aemp showprofile``: show settings, and where they are set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from aemp_gevent.cli.completion import profile_names
from aemp_gevent.cli.output import echo, json_option, print_json, print_table
from aemp_gevent.cli.profile_file import ProfileFile
from aemp_gevent.cli.set_up import changes
from aemp_gevent.settings import sources as settings
from aemp_gevent.settings.profiles import PROFILES, layers_of
from aemp_gevent.settings.rules import PeerRule

HIDDEN = "(hidden)"

_secrets_option = click.option("--show-secrets", is_flag=True, help="Show secrets and keys, too.")


class LastWord(click.Command):
    """A command that accepts its options after its argument."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        return super().make_context(info_name, args, parent, **{**extra, "allow_interspersed_args": True})


@click.command(cls=LastWord)
@click.argument("name", required=False, shell_complete=profile_names)
@_secrets_option
@json_option
@changes
def showprofile(file: ProfileFile, name: str | None, show_secrets: bool, as_json: bool) -> None:
    """Show the settings of a profile itself, without those that it inherits.

    Without NAME, show the settings for all profiles, and list the profiles.
    """
    if name is None:
        values = {key: value for key, value in file.content.items() if key != PROFILES}
    else:
        values = file.existing(name)
    shown = _hidden(values, show_secrets)
    if as_json:
        print_json(shown)
        return
    rows = [{"setting": key, "value": value} for key, value in shown.items()]
    print_table(rows, ("setting", "value"), empty="nothing is set")
    if name is None and file.profiles:
        echo(f"profiles: {', '.join(file.profiles)}")


@click.command(cls=LastWord)
@click.argument("name", required=False, shell_complete=profile_names)
@click.option("--all", "everything", is_flag=True, help="Show also settings that have their default.")
@_secrets_option
@json_option
@changes
def showconfig(file: ProfileFile, name: str | None, everything: bool, show_secrets: bool, as_json: bool) -> None:
    """Show the settings that a node would get, and where each comes from.

    They are those of the profile NAME or, without NAME, of the default profile.
    The environment takes precedence over the profile.
    """
    if name is not None:
        file.existing(name)
    layers = layers_of(name, file.path, file.content, os.environ)
    found = settings.effective(layers, os.environ)
    values = _hidden({key: _as_written(value) for key, (value, _where) in found.items()}, show_secrets)
    rows = [
        {"setting": key, "value": values[key], "from": where or "default"}
        for key, (_value, where) in found.items()
        if where or everything
    ]
    if as_json:
        print_json({row["setting"]: {"value": row["value"], "from": row["from"]} for row in rows})
        return
    print_table(rows, ("setting", "value", "from"), empty="nothing is set; start with 'aemp gensecret'")


def _as_written(value: Any) -> Any:
    """Return a setting as it is written in the profile file."""
    if isinstance(value, tuple):
        return [_as_written(item[0] if isinstance(item, tuple) and len(item) == 1 else item) for item in value]
    return asdict(value) if isinstance(value, PeerRule) else value


def _hidden(values: Mapping[str, Any], show_secrets: bool) -> dict[str, Any]:
    secret = () if show_secrets else settings.secret_names()
    return {key: HIDDEN if key in secret and value is not None else value for key, value in values.items()}
