cdef int _GENERATOR, _NEVER_RUNS

cpdef check_callable(call, function)
