cpdef in_short(str reply, left, tuple chain)
