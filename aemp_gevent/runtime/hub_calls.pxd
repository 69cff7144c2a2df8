# No types: the generator that the loop calls is worth compiling as it stands.
