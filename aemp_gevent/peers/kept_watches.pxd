# No types: its functions are worth compiling as they stand.
