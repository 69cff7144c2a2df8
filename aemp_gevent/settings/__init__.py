# SPDX-License-Identifier: MIT
"""The settings of a node: where they come from, profiles, and rules for peers."""
