# SPDX-License-Identifier: MIT
"""One authenticated connection to another node: its handshake, heartbeat and flow control."""
