from aemp_gevent.ports.c_calls cimport getcurrent

cdef class Wait:
    cdef public object called, reply

cpdef call_of(message)
cpdef call_being_served()
cpdef time_left(reply=*)
cpdef _answer(host, reply, call, answer)
