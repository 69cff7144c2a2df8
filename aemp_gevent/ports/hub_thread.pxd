from aemp_gevent.ports.c_calls cimport get_ident
from aemp_gevent.ports.timer_queue cimport TimerQueue

cdef class HubThread:
    cdef object __weakref__
    cdef public unsigned long thread
    cdef public object _hub, _doorbell, _next_turn, _helpers
    cdef public TimerQueue timers
