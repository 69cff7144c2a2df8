# SPDX-License-Identifier: MIT
"""Running code: ports, the scheduler that runs them, ``receive``, timers and monitors."""
