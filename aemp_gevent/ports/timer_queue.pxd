cdef class TimerQueue:
    cdef public object hub
    cdef dict _timers
    cdef list _heap
    cdef object _numbers, _alarm, _ring
    cdef double _rings_at
    cdef bint _holds_loop

    cpdef new(self)
    cpdef set_off(self, timer, double due, call, tuple args=*)
    cpdef end(self, timer)
    cpdef _set_alarm(self, double due)
    cpdef _silence(self)
    cpdef _set_next(self)
    cpdef _tidy(self)
    cpdef bint _is_untidy(self) except -1
