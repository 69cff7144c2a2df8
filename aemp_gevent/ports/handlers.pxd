cdef class Handlers:
    cdef public dict _tags
    cdef public list _patterns

    cpdef bint serve(self, tuple message) except -1
