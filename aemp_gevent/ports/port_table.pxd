from aemp_gevent.ports.port cimport Receiver

cdef int REMOTE

cdef class PortTable:
    cdef public dict _by_id, _aliases
    cdef public object by_id

    cpdef find(self, port_id)
    cpdef add(self, Receiver port)
    cpdef remove(self, Receiver port)
    cpdef tuple names_of(self, Receiver port)
