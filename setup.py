# SPDX-License-Identifier: MIT
"""Let tools that still call ``setup.py`` work; everything is said in setup.cfg."""

from setuptools import setup

setup()
