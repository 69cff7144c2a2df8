# SPDX-License-Identifier: MIT
"""A live page that shows a network: its nodes and links, and what hangs.

In a web application::

    from aemp_gevent.contrib.dashboard import dashboard

    app.wsgi_app = dashboard(app.wsgi_app, "/_aemp", token="…")

``aemp dashboard`` serves the same page without an application. The page *Watch a network in the browser* says more.
"""

from aemp_gevent.contrib.dashboard.pages import dashboard, dashboard_app

__all__ = ["dashboard", "dashboard_app"]
