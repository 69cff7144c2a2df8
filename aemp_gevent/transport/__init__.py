# SPDX-License-Identifier: MIT
"""One socket: listening, dialling, TLS, reading and writing."""
