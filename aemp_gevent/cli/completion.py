# SPDX-License-Identifier: MIT
"""Shell completion of arguments."""

from __future__ import annotations

import click


def profile_names(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the profiles whose names begin with a text."""
    # Imported here because only completion needs it.
    from aemp_gevent.cli.profile_file import ProfileFile  # noqa: PLC0415
    from aemp_gevent.errors import ProfileError  # noqa: PLC0415

    try:
        return [name for name in ProfileFile().profiles if name.startswith(begun)]
    except (ProfileError, click.ClickException):
        return []  # the shell is waiting, and shows no errors


def setting_names(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the settings whose names begin with a text."""
    from aemp_gevent.settings.sources import setting_names as names  # noqa: PLC0415

    return [name for name in names() if name.startswith(begun)]
