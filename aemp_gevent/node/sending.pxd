from aemp_gevent.node.node_ports cimport NodePorts
from aemp_gevent.ports.c_calls cimport get_ident

cdef int REMOTE

cdef class Sending(NodePorts):
    cdef public bint _dropped_aloud
