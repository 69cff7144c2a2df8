# SPDX-License-Identifier: MIT
"""Requests and their answers: ``cal``, ``call`` and ``serve``."""
