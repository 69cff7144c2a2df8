cdef class Wait:
    cdef public object called, reply
