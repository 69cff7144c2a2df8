cdef class HubThread:
    cdef object __weakref__
    cdef public object thread, _hub, _doorbell, _next_turn, _timers, _helpers
    cdef public bint _wraps_timers
