# SPDX-License-Identifier: MIT
"""What a node is told: its settings, where they come from, profiles and rules for peers."""
