from aemp_gevent.node.direct_sending cimport DirectSending
from aemp_gevent.ports.c_calls cimport get_ident
from aemp_gevent.ports.callbacks cimport check_callable
from aemp_gevent.ports.port cimport Port, Receiver, activate

cimport cython

cdef int IDLE, REMOTE

cdef class NodePorts(DirectSending):
    cdef public dict _ports, _kept
    cdef public object _new_name, _id, _hints
    cdef public str _prefix
    cdef public bint _is_strict, _is_over
    cdef public Py_ssize_t _max_name_bytes

    @cython.locals(port=Port)
    cpdef Port _create(self, name, callback=*, limit=*, context=*, kind=*, bint is_entered=*)
    cpdef Receiver _find(self, port)
