# What is built: one line per shared library.
set(probe
  ${native}/os/process.cc ${native}/os/shared_memory.cc
  ${native}/probe/account.cc ${native}/probe/count.cc ${native}/probe/mappings.cc ${native}/probe/python.cc
  ${native}/probe/region.cc ${native}/probe/thread.cc)
set(abi ${native}/abi/init.cc ${native}/abi/malloc.cc ${native}/abi/mappings.cc ${native}/abi/new.cc)

add_native_library(heapsmith_watch ${abi} ${probe} ${native}/heap/next.cc)
