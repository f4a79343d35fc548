# The teaching allocator: C over the C library, one library for each header layout, and the program that drives any
# such library to see what it does.
function(add_osmem_target name)
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wconversion -Wno-sign-conversion -Wshadow -fvisibility=hidden)
  target_link_options(${name} PRIVATE -Wl,-z,relro -Wl,-z,defs -Wl,--as-needed -Wl,--hash-style=gnu)
endfunction()

foreach(layout 1 2)
  set(name osmem)
  if(layout EQUAL 2)
    set(name osmem_v2)
  endif()
  add_library(${name} SHARED ${native}/osmem/osmem.c)
  add_osmem_target(${name})
  target_compile_definitions(${name} PRIVATE OSMEM_LAYOUT=${layout})
  # Copied under whatever name is wanted, the library must be found under that name.
  set_target_properties(${name} PROPERTIES NO_SONAME ON)
  install(TARGETS ${name} LIBRARY DESTINATION heapsmith/native/lib)
endforeach()

add_executable(osmem_driver ${native}/osmem/driver.c)
add_osmem_target(osmem_driver)
# The functions under test come from the library that is preloaded, so they stay undefined here.
target_link_options(osmem_driver PRIVATE -Wl,-z,now)
if(DEFINED CMAKE_LIBRARY_OUTPUT_DIRECTORY)
  set_target_properties(osmem_driver PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_LIBRARY_OUTPUT_DIRECTORY})
endif()
install(TARGETS osmem_driver RUNTIME DESTINATION heapsmith/native/lib)
