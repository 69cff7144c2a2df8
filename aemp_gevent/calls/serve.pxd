cdef class Wait:
    cdef public object called, reply

cpdef call_of(message)
cpdef call_being_served()
cpdef _answer(host, reply, call, answer)
