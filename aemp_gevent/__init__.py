# SPDX-License-Identifier: MIT
from aemp_gevent.local import LocalNode
from aemp_gevent.context import SELF, psub
from aemp_gevent.receive import receive, get, get_cond
from aemp_gevent.matching import any_
_n = LocalNode()
port=_n.port; snd=_n.snd; rcv=_n.rcv; kil=_n.kil; mon=_n.mon; attach=_n.attach; port_async=_n.port_async; rcv_async=_n.rcv_async
after=_n.after; cal=_n.cal; syncal=_n.syncal; reg=_n.reg; spawn=_n.spawn; NODE=_n.NODE; peval=_n.peval; actor=_n.actor
