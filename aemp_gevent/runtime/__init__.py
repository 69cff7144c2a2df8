# SPDX-License-Identifier: MIT
"""The interpreter and the event loop: threads, forks, calls from the loop, times and counts, and bounded logs."""
