# SPDX-License-Identifier: MIT
"""Measure the library against bare gevent: one module for each row of the performance table.

``python -m benchmarks --help`` says how to run them, ``README.md`` how to read what they print. A row module holds

- ``N``: its full amount of work, ``COMPARISONS``: the (ours, ceiling) pairs of variants whose ratio is of interest,
- ``ours(n, variant)``: the work done with ``aemp_gevent``, imported inside so that ceilings run without it,
- ``ceiling(n, variant)``: the same work in bare gevent with no features at all,
- for two processes also ``serve_ours(variant)`` and ``serve_ceiling(variant)``: the other process (see ``peer``).

Nothing here asserts a speed. Read next: ``rows``, then any row.
"""
