# The system calls of a transport as C functions, for compiled code: Python's methods parse their arguments and let go of
# the interpreter lock, which together takes longer than all else in the reading of a small message. Sockets that never
# block need no such break; in a program with busy threads it would cost up to 5 ms, until the lock is free again.

cdef extern from *:
    """
    #ifndef AEMP_SYSTEM_CALLS
    #define AEMP_SYSTEM_CALLS

    #ifdef MS_WINDOWS
    #define AEMP_HAS_CALLS 0
    #define AEMP_CALL(call) (PyErr_SetNone(PyExc_NotImplementedError), -1)
    #else
    #include <sys/socket.h>
    #define AEMP_HAS_CALLS 1
    #define AEMP_CALL(call) (call)
    #endif

    #define AEMP_SMALL_READ 4096

    /* Read what there is into the buffer, and return it: a copy of it if it is small, which takes less time than to make
       a view of the buffer, else that. */
    static inline PyObject *aemp_receive(int descriptor, PyObject *buffer, PyObject *view) {
        Py_ssize_t count = AEMP_CALL(recv(descriptor, PyByteArray_AS_STRING(buffer), PyByteArray_GET_SIZE(buffer), 0));
        if (count < 0)
            return PyErr_Occurred() ? NULL : PyErr_SetFromErrno(PyExc_OSError);
        if (count <= AEMP_SMALL_READ)
            return PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), count);
        return PySequence_GetSlice(view, 0, count);
    }

    static inline Py_ssize_t aemp_send(int descriptor, PyObject *data) {
        Py_ssize_t count = AEMP_CALL(send(descriptor, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), 0));
        if (count < 0 && !PyErr_Occurred())
            PyErr_SetFromErrno(PyExc_OSError);
        return count;
    }

    #endif
    """
    bint HAS_CALLS "AEMP_HAS_CALLS"
    object receive "aemp_receive"(int, bytearray, view)
    Py_ssize_t send "aemp_send"(int, bytes) except -1
