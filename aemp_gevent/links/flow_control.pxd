cdef class Room:
    cdef public object locks, _event
    cdef public Py_ssize_t waiting
