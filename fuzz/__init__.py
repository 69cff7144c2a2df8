# SPDX-License-Identifier: MIT
"""Fuzz everything that a peer can send: six targets, each a function of bytes.

A target returns when the library did right by these bytes, whatever that is, and raises
otherwise. :mod:`fuzz.targets` has them, ``corpus/`` what to begin with, a folder for each
target; a file in there is tried by the tests, too, so that what was found once stays found.

``make fuzz`` has `atheris <https://github.com/google/atheris>`_ vary them, guided by what
code they reach; where it cannot be installed, :mod:`fuzz.mutate` does it blindly. The tests
have hypothesis do it for a few seconds: ``tests/hostile/test_fuzz_targets.py``.
"""
