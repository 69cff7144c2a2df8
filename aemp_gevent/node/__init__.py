# SPDX-License-Identifier: MIT
"""What ties one process together: its calls, node requests, spawning and inspection."""
