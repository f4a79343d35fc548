# What is built: one line per shared library.
set(probe
  ${native}/os/numbered_file.cc ${native}/os/process.cc ${native}/os/shared_memory.cc
  ${native}/probe/account.cc ${native}/probe/attention.cc ${native}/probe/count.cc ${native}/probe/mappings.cc
  ${native}/probe/python.cc ${native}/probe/python_counted.cc ${native}/probe/region.cc ${native}/probe/thread.cc)
set(abi ${native}/abi/init.cc ${native}/abi/malloc.cc ${native}/abi/mappings.cc ${native}/abi/new.cc
  ${native}/abi/restricted.cc ${native}/abi/shared_region.cc)

# What the allocator and the kernel tell without a probe.
set(told ${native}/abi/oe_mallinfo.cc ${native}/abi/recycle.cc ${native}/abi/report.cc ${native}/heap/told.cc ${native}/os/limits.cc)

add_native_library(heapsmith_watch ${abi} ${native}/abi/mallinfo.cc ${native}/abi/statistics.cc ${told} ${probe} ${native}/heap/next.cc)
add_native_library(heapsmith ${native}/abi/asked.cc ${told} ${native}/os/process.cc ${native}/os/shared_memory.cc)

# Every allocation written down, and who reads it outside.
add_native_library(heapsmith_record ${native}/abi/malloc.cc ${native}/abi/mappings.cc ${native}/abi/new.cc ${native}/abi/record_init.cc
  ${native}/abi/restricted.cc   ${native}/heap/next.cc ${native}/os/numbered_file.cc ${native}/os/process.cc ${native}/os/shared_memory.cc
  ${native}/probe/python.cc ${native}/record/entries.cc ${native}/record/events.cc ${native}/record/mappings.cc ${native}/record/modules.cc
  ${native}/record/python.cc ${native}/record/python_frames.cc ${native}/record/recording.cc ${native}/record/ring.cc
  ${native}/record/sampled.cc ${native}/record/stacks.cc ${native}/record/stamps.cc ${native}/record/texts.cc ${native}/record/unwind.cc)
target_include_directories(heapsmith_record PRIVATE ${native}/abi/recorded)
# Loaded into a running process, its own calls must come to itself.
target_link_options(heapsmith_record PRIVATE -Wl,-Bsymbolic-functions)
add_native_library(heapsmith_drain ${native}/drain/batch.cc ${native}/drain/drain.cc ${native}/drain/process.cc)
target_link_libraries(heapsmith_drain PRIVATE m)

# The presets, and the programs that benchmarks run on them. `python -m heapsmith.forge.presets` renders the configurations.
# Beside its own sources, a forged heap has the part of the probe that makes it seen.
set(seen
  ${native}/abi/restricted.cc ${native}/abi/shared_region.cc ${native}/os/numbered_file.cc ${native}/os/process.cc
  ${native}/os/shared_memory.cc
  ${native}/probe/account.cc ${native}/probe/attention.cc ${native}/probe/batches.cc ${native}/probe/region.cc
  ${native}/probe/thread.cc)
foreach(preset default hardened low-latency pow2 small)
  add_native_library(heapsmith_${preset} ${native}/abi/forged_init.cc ${native}/abi/forged_region.cc
    ${native}/abi/forged_statistics.cc ${native}/abi/knobs.cc ${native}/abi/leaks.cc ${native}/abi/libc_doors.cc
    ${native}/abi/malloc.cc ${native}/abi/new.cc ${seen})
  target_include_directories(heapsmith_${preset} PRIVATE ${native}/presets/${preset})
  # -O3 makes copies of slow paths: pages of code that every program would hold, and none runs faster.
  target_compile_options(heapsmith_${preset} PRIVATE -O2)
endforeach()
function(add_native_program name)
  file(GLOB sources CONFIGURE_DEPENDS ${native}/${name}/*.c)
  add_executable(heapsmith_${name} ${sources})
  set_target_properties(heapsmith_${name} PROPERTIES
    C_STANDARD 11 RUNTIME_OUTPUT_DIRECTORY "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}" OUTPUT_NAME ${name})
  target_compile_options(heapsmith_${name} PRIVATE -O2 -Wall -Wextra -fno-builtin)
  find_package(Threads REQUIRED)
  target_link_libraries(heapsmith_${name} PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
  install(TARGETS heapsmith_${name} RUNTIME DESTINATION heapsmith/native/lib)
endfunction()
add_native_program(workloads)
add_native_program(checks)
include(${native}/osmem/osmem.cmake)

add_native_library(heapsmith_track ${native}/track/heap_track.c)
target_compile_definitions(heapsmith_track PRIVATE HEAP_TRACK_PRELOAD)

# Allocates until there is no more: `heapsmith probe` sends it.
add_executable(heapsmith_reach ${native}/reach/reach.c)
target_compile_options(heapsmith_reach PRIVATE -O1 -Wall -Wextra -fno-builtin-malloc -fno-builtin-realloc)
if(CMAKE_LIBRARY_OUTPUT_DIRECTORY)
  set_target_properties(heapsmith_reach PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_LIBRARY_OUTPUT_DIRECTORY})
endif()
install(TARGETS heapsmith_reach RUNTIME DESTINATION heapsmith/native/lib)

# The promises of the statistics call, on any allocator, and its cost: `heapsmith check stats` and `bench stats` run them.
find_package(Threads REQUIRED)
foreach(part checks cost)
  add_executable(heapsmith_statistics_${part} ${native}/statistics/${part}.c ${native}/abi/heapsmith_client.c)
  target_include_directories(heapsmith_statistics_${part} PRIVATE ${native})
  target_compile_options(heapsmith_statistics_${part} PRIVATE -O1 -Wall -Wextra -fno-builtin)
  target_link_libraries(heapsmith_statistics_${part} PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
  if(CMAKE_LIBRARY_OUTPUT_DIRECTORY)
    set_target_properties(heapsmith_statistics_${part} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_LIBRARY_OUTPUT_DIRECTORY})
  endif()
  install(TARGETS heapsmith_statistics_${part} RUNTIME DESTINATION heapsmith/native/lib)
endforeach()

# Open Enclave's allocator interface in a fixed region.
add_native_library(heapsmith_enclave ${native}/abi/oe_allocator.cc)

# Initialised before all others: takes the preload from programs whose sanitizer has to come first. No loop of it may
# become a call, and it is small enough for one page of each kind.
add_native_library(heapsmith_gate ${native}/abi/gate.cc)
target_compile_options(heapsmith_gate PRIVATE -fno-builtin -fno-tree-loop-distribute-patterns -fno-stack-protector)
target_link_options(heapsmith_gate PRIVATE -Wl,-z,initfirst -Wl,-z,noseparate-code)
# Plays a recorded program's calls over any malloc: `heapsmith replay` starts it.
add_executable(heapsmith_replay ${native}/replay/replay.c)
target_include_directories(heapsmith_replay PRIVATE ${native})
set_target_properties(heapsmith_replay PROPERTIES C_STANDARD 11)
target_compile_options(heapsmith_replay PRIVATE -O2 -Wall -Wextra -fno-builtin)
target_link_libraries(heapsmith_replay PRIVATE Threads::Threads)
if(CMAKE_LIBRARY_OUTPUT_DIRECTORY)
  set_target_properties(heapsmith_replay PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_LIBRARY_OUTPUT_DIRECTORY})
endif()
install(TARGETS heapsmith_replay RUNTIME DESTINATION heapsmith/native/lib)

# The numbers of a forged heap, for the simulator of `heapsmith tune`.
add_native_library(heapsmith_geometry ${native}/geometry/geometry.cc)
# Local heaps for C and Python, and NumPy's data allocations from one.
add_native_library(heapsmith_local ${native}/abi/local_heap.cc)
