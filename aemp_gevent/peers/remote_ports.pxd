cdef class RemotePorts:
    cdef dict __dict__
    cdef public dict _ports, _orphans, _untold
    cdef public set _sent_once
    cdef public object _peer, scheduler, kept
    cdef public Py_ssize_t _sweep_at
    cdef public bint _is_virtual, _are_shunned

    cpdef bint is_unknown(self, name) except -1
