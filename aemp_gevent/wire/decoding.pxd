cdef class Decoder:
    cpdef feed(self, data)
    cpdef quickly(self)
