# What is built: one line per shared library.
include(${native}/osmem/osmem.cmake)
