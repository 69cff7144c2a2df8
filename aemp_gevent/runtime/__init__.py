# SPDX-License-Identifier: MIT
"""The interpreter and the event loop: threads, forks, calls from the loop, and logs in bounds."""
