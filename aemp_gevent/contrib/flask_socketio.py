# SPDX-License-Identifier: MIT
"""Flask-SocketIO whose ``message_queue`` may be an ``aemp://`` URL.

Import :class:`SocketIO` from here, and everything else from ``flask_socketio``::

    from flask_socketio import emit
    from aemp_gevent.contrib.flask_socketio import SocketIO

    socketio = SocketIO(app, message_queue="aemp://chat")

Programs without an application emit as with Flask-SocketIO's other queues:
``SocketIO(message_queue="aemp://chat").emit("said", "hello")``.
"""

from __future__ import annotations

from typing import Any

import flask_socketio

from aemp_gevent.contrib.joining import SCHEME
from aemp_gevent.contrib.socketio import AempManager

__all__ = ["SocketIO"]

# Flask-SocketIO has no type annotations, so its arguments are Any.


class SocketIO(flask_socketio.SocketIO):  # type: ignore[misc]  # see above
    """Flask-SocketIO's class, which also takes ``message_queue="aemp://…"``.

    It uses an :class:`~aemp_gevent.contrib.socketio.AempManager` with that URL then. The channel is ``channel``, or
    that class's default one. Without an application it only emits. Other URLs and options are Flask-SocketIO's own.
    """

    def init_app(self, app: Any, **kwargs: Any) -> None:
        """Set it up, for an application, or without one only to emit. Options as in Flask-SocketIO."""
        kept: dict[str, Any] = self.server_options  # pyright: ignore[reportAttributeAccessIssue]  # not in its stubs
        options = {**kept, **kwargs}
        url = options.get("message_queue")
        if isinstance(url, str) and url.startswith(f"{SCHEME}:") and "client_manager" not in options:
            kept.pop("channel", None)
            kwargs.pop("channel", None)
            channel = options.get("channel") or "socketio"
            kwargs["client_manager"] = AempManager(url, channel=channel, write_only=app is None)
        super().init_app(app, **kwargs)
