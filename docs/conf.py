# SPDX-License-Identifier: MIT
"""Sphinx's settings. The build needs no network: nothing is linked to other projects' inventories."""

from aemp_gevent import otp
from aemp_gevent._version import __version__
from aemp_gevent.otp.marks import MarkedMethod

project = "aemp_gevent"
author = "The aemp_gevent authors"
copyright = "2026, The aemp_gevent authors"  # noqa: A001 (Sphinx's name for it)
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"aemp_gevent {release}"
html_copy_source = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
# "Source:" says which rule of which document a function follows (see CONTRIBUTING.md).
napoleon_custom_sections = [("Source", "notes_style")]

# A reference to a name of the public surface must lead to its entry. Those to Python, gevent and zope cannot, offline,
# and those between modules inside are for readers of the source.
nitpicky = True
nitpick_ignore_regex = [("py:mod", ".*"), ("py:.*", r"(?!aemp_gevent\.\w+$).*")]

# Marked methods of servers cannot be called, so autodoc does not find their parameters. It documents the functions.
for kind in (otp.Supervisor, otp.DynamicSupervisor):
    for name, marked in list(vars(kind).items()):
        if isinstance(marked, MarkedMethod):
            setattr(kind, name, marked.function)
