// hs_recycle: whatever allocator the process has is asked to give its free pages back.
#include <dlfcn.h>
#include <stddef.h>

#include "abi/heapsmith.h"
#include "base/compiler.h"
#include "os/process.h"

namespace {

template <class Function>
bool find(const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
  dlerror();
  return function != nullptr;
}

int said(bool released) { return released ? HS_OK : HS_FAILURE; }

}  // namespace

extern "C" HS_EXPORT int hs_recycle(void) {
  const hs::os::KeepErrno keep;
  int (*of_forged)() = nullptr;
  if (find("hs_recycle", of_forged)) return of_forged();
  int (*of_jemalloc)(const char*, void*, size_t*, void*, size_t) = nullptr;
  if (find("mallctl", of_jemalloc)) {
    // 4096 is every arena; an allocator that only answers to the name refuses.
    if (of_jemalloc("arena.4096.purge", nullptr, nullptr, nullptr, 0) == 0) return HS_OK;
  }
  void (*of_mimalloc)(bool) = nullptr;
  if (find("mi_collect", of_mimalloc)) return of_mimalloc(true), HS_OK;
  void (*of_tcmalloc)() = nullptr;
  if (find("MallocExtension_ReleaseFreeMemory", of_tcmalloc)) return of_tcmalloc(), HS_OK;
  int (*trim)(size_t) = nullptr;
  if (find("malloc_trim", trim)) return said(trim(0) != 0);
  return HS_UNSUPPORTED;
}
