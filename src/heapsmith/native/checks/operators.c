// operator new and delete, called by their symbols, so that no C++ runtime is needed where there is none.
#include <dlfcn.h>

#include "check.h"

typedef void* (*make)(size_t);
typedef void* (*make_aligned)(size_t, size_t);
typedef void (*unmake)(void*);

static void* function(const char* symbol) {
  void* found = dlsym(RTLD_DEFAULT, symbol);
  if (!found) unsupported("there is no %s in this process", symbol);
  return found;
}

static void pairs(void) {
  static const char* const made[] = {"_Znwm", "_Znam"};
  static const char* const unmade[] = {"_ZdlPv", "_ZdaPv"};
  for (unsigned kind = 0; kind < 2; kind++) {
    make new_ = (make)function(made[kind]);
    unmake delete_ = (unmake)function(unmade[kind]);
    for (size_t bytes = 0; bytes < 200000; bytes = bytes * 3 + 1) {
      void* block = new_(bytes);
      HOLDS(block, "%s(%zu) gave nothing", made[kind], bytes);
      HOLDS(bytes < 16 || (uintptr_t)block % 16 == 0, "%s(%zu) is not aligned", made[kind], bytes);
      memset(block, 1, bytes);
      delete_(block);
    }
    delete_(NULL);
  }
}
static void aligned_pairs(void) {
  make_aligned new_ = (make_aligned)function("_ZnwmSt11align_val_t");
  void (*delete_)(void*, size_t) = (void (*)(void*, size_t))function("_ZdlPvSt11align_val_t");
  for (size_t alignment = 16; alignment <= 65536; alignment *= 2) {
    void* block = new_(100, alignment);
    HOLDS(block && (uintptr_t)block % alignment == 0, "operator new with alignment %zu gave %p", alignment, block);
    delete_(block, alignment);
  }
}

const check operator_checks[] = {{"operator-new", "operator new and delete, also of no bytes and NULL", pairs, false},
                                 {"operator-new-aligned", "operator new keeps alignments", aligned_pairs, false},
                                 {0}};
