cpdef to_seconds(value, call, name=*)
