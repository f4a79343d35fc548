# What is built: one line per shared library.
