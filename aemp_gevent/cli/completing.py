# SPDX-License-Identifier: MIT
"""What shells may offer for an argument, when the tab key is hit."""

from __future__ import annotations

import click


def profile_names(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the profiles whose names begin like this."""
    # Imported only by who completes.
    from aemp_gevent.cli.profile_file import ProfileFile  # noqa: PLC0415
    from aemp_gevent.errors import ProfileError  # noqa: PLC0415

    try:
        return [name for name in ProfileFile().profiles if name.startswith(begun)]
    except (ProfileError, click.ClickException):
        return []  # a shell waits, and nobody reads errors


def setting_names(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the settings whose names begin like this."""
    from aemp_gevent.settings.sources import setting_names as names  # noqa: PLC0415

    return [name for name in names() if name.startswith(begun)]
