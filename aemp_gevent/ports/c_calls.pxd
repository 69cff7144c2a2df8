from cpython.object cimport PyObject

# C functions for what compiled code would otherwise call as Python objects: those of greenlet, whose table of C functions
# keeps its order, and those of deque, as its methods name them. A module does not assign to these names, which are no
# variables there, but enters the Python functions into its globals().

cdef extern from *:
    """
    #ifndef AEMP_C_CALLS
    #define AEMP_C_CALLS

    static void **aemp_greenlet = NULL;

    static int aemp_find_greenlet(void) {
        aemp_greenlet = (void **)PyCapsule_Import("greenlet._C_API", 0);
        return aemp_greenlet == NULL ? -1 : 0;
    }

    static inline PyObject *aemp_getcurrent(void) {
        if (aemp_greenlet == NULL && aemp_find_greenlet() < 0)
            return NULL;
        return ((PyObject *(*)(void))aemp_greenlet[4])();
    }

    static inline PyObject *aemp_switch(PyObject *target) {
        if (aemp_greenlet == NULL && aemp_find_greenlet() < 0)
            return NULL;
        return ((PyObject *(*)(PyObject *, PyObject *, PyObject *))aemp_greenlet[6])(target, NULL, NULL);
    }

    static PyTypeObject *aemp_deque = NULL;
    static PyObject *aemp_append_name, *aemp_popleft_name;
    static PyCFunction aemp_deque_append, aemp_deque_popleft;

    static PyCFunction aemp_method(PyObject *type, const char *name, int flags) {
        PyObject *method = PyObject_GetAttrString(type, name);
        PyCFunction found = NULL;
        if (method == NULL) {
            PyErr_Clear();
            return NULL;
        }
        if (Py_TYPE(method) == &PyMethodDescr_Type && ((PyMethodDescrObject *)method)->d_method->ml_flags == flags)
            found = ((PyMethodDescrObject *)method)->d_method->ml_meth;
        Py_DECREF(method);
        return found;
    }

    static int aemp_find_deque(void) {
        PyObject *module = PyImport_ImportModule("collections");
        PyObject *deque = module == NULL ? NULL : PyObject_GetAttrString(module, "deque");
        Py_XDECREF(module);
        if (deque == NULL)
            return -1;
        aemp_deque_append = aemp_method(deque, "append", METH_O);
        aemp_deque_popleft = aemp_method(deque, "popleft", METH_NOARGS);
        aemp_append_name = PyUnicode_InternFromString("append");
        aemp_popleft_name = PyUnicode_InternFromString("popleft");
        if (aemp_append_name == NULL || aemp_popleft_name == NULL)
            return -1;
        aemp_deque = (PyTypeObject *)deque;
        return 0;
    }

    static inline PyObject *aemp_append(PyObject *queue, PyObject *value) {
        if (aemp_deque == NULL && aemp_find_deque() < 0)
            return NULL;
        if (Py_TYPE(queue) == aemp_deque && aemp_deque_append != NULL)
            return aemp_deque_append(queue, value);
        return PyObject_CallMethodOneArg(queue, aemp_append_name, value);
    }

    static inline PyObject *aemp_popleft(PyObject *queue) {
        if (aemp_deque == NULL && aemp_find_deque() < 0)
            return NULL;
        if (Py_TYPE(queue) == aemp_deque && aemp_deque_popleft != NULL)
            return aemp_deque_popleft(queue, NULL);
        return PyObject_CallMethodNoArgs(queue, aemp_popleft_name);
    }

    /* Most of what compiled code tests for its truth are queues. */
    #ifndef Py_ALWAYS_INLINE
    #define Py_ALWAYS_INLINE
    #endif
    static inline Py_ALWAYS_INLINE int aemp_is_true(PyObject *value) {
        if (aemp_deque == NULL && aemp_find_deque() < 0)
            return -1;
        return Py_TYPE(value) == aemp_deque ? Py_SIZE(value) != 0 : PyObject_IsTrue(value);
    }

    #define PyObject_IsTrue aemp_is_true

    /* Return a borrowed reference, or NULL: without an exception if the dictionary cannot have this key. */
    static inline PyObject *aemp_find(PyObject *dict, PyObject *key) {
        PyObject *found = PyDict_GetItemWithError(dict, key);
        if (found == NULL && PyErr_Occurred()
            && (PyErr_ExceptionMatches(PyExc_KeyError) || PyErr_ExceptionMatches(PyExc_TypeError)))
            PyErr_Clear();
        return found;
    }

    /* A message that can be in no reference cycle: the garbage collector would find that out in its first look at it. */
    static inline void aemp_untrack(PyObject *message) {
        Py_ssize_t place = PyTuple_GET_SIZE(message);
        while (--place >= 0)
            if (PyObject_IS_GC(PyTuple_GET_ITEM(message, place)))
                return;
        PyObject_GC_UnTrack(message);
    }

    /* [first, *rest], in a list that need not grow. */
    static inline PyObject *aemp_in_front(PyObject *first, PyObject *rest) {
        PyObject *list;
        Py_ssize_t place;
        if (!PyTuple_Check(rest)) {
            PyErr_SetString(PyExc_TypeError, "a message is a tuple");
            return NULL;
        }
        list = PyList_New(PyTuple_GET_SIZE(rest) + 1);
        if (list == NULL)
            return NULL;
        PyList_SET_ITEM(list, 0, Py_NewRef(first));
        for (place = 0; place < PyTuple_GET_SIZE(rest); place++)
            PyList_SET_ITEM(list, place + 1, Py_NewRef(PyTuple_GET_ITEM(rest, place)));
        return list;
    }

    typedef struct {
        PyObject_HEAD
        PyObject *weakreflist;
        PyObject *dict;
        void *implementation;
    } aemp_greenlet_layout;

    #define aemp_references(object) Py_REFCNT(object)

    #endif
    """
    unsigned long get_ident "PyThread_get_thread_ident"()
    bint PURE "0"
    ctypedef class greenlet.greenlet [object aemp_greenlet_layout, check_size error]:
        pass
    PyObject *find "aemp_find"(dict, object) except? NULL
    object append "aemp_append"(object, object)
    list in_front "aemp_in_front"(object, object)
    object getcurrent "aemp_getcurrent"()
    Py_ssize_t getrefcount "aemp_references"(object)
    object popleft "aemp_popleft"(object)
    object switch "aemp_switch"(object)
    void untrack "aemp_untrack"(tuple)

ctypedef object (*Take)(object)
