// What a forged heap tells of itself: to heapsmith.h, and to whoever asks glibc's questions.
#include <dlfcn.h>
#include <limits.h>
#include <malloc.h>

#include "abi/heap.h"
#include "base/atomic.h"
#include "base/compiler.h"

namespace {

using hs::SpecHeap;

size_t out_bytes() {
  const auto out = SpecHeap::count_out_blocks();
  size_t bytes = 0;
  for (const uint64_t of_class : out.bytes) bytes += of_class;
  return bytes;
}

bool is_name(const char* name, const char* wanted) {
  while (*name != '\0' && *name == *wanted) ++name, ++wanted;
  return *name == *wanted;
}

int within_int(size_t bytes) { return bytes > INT_MAX ? INT_MAX : static_cast<int>(bytes); }

}  // namespace

extern "C" {

// Which heap this is: the name of its spec.
HS_EXPORT const char* heapsmith_name() { return hs::spec_name; }

// For heapsmith.h (heap/told.cc): bytes that are out (with the program, or in another thread's cache),
// committed, reserved, metadata, free and cached.
HS_EXPORT void heapsmith_tell(size_t (&figures)[5]) {
  const hs::HeapGauges gauges = SpecHeap::gauges();
  figures[0] = out_bytes();
  figures[1] = gauges.committed_bytes;
  figures[2] = gauges.reserved_bytes;
  figures[3] = gauges.metadata_bytes;
  figures[4] = gauges.free_cached_bytes;
}

}  // extern "C"

// Only glibc has these questions.
#ifdef __GLIBC__

extern "C" {

HS_EXPORT struct mallinfo2 mallinfo2() noexcept {
  size_t figures[5];
  heapsmith_tell(figures);
  struct mallinfo2 answer = {};
  answer.uordblks = figures[0];
  answer.arena = figures[1] > figures[0] ? figures[1] : figures[0];
  answer.fordblks = answer.arena - answer.uordblks;
  answer.ordblks = 1;
  return answer;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // programs that ask still want an answer
HS_EXPORT struct mallinfo mallinfo() noexcept {
  const struct mallinfo2 wide = mallinfo2();
  struct mallinfo answer = {};
  answer.arena = within_int(wide.arena);
  answer.ordblks = 1;
  answer.uordblks = within_int(wide.uordblks);
  answer.fordblks = within_int(wide.fordblks);
  return answer;
}

}  // extern "C"

#if defined(__x86_64__) || defined(__aarch64__)

// psutil asks the C library's own mallinfo2, by its handle: a preloaded one is never found. So dlsym itself is
// answered here for that name, and for every other one goes on to the real one, which looks at where it
// was called from: by a jump, so that this is still the program.
extern "C" {

__attribute__((visibility("hidden"), used)) void* (*hs_real_dlsym)(void*, const char*) = nullptr;

__attribute__((visibility("hidden"), used)) void* hs_answer_dlsym(const char* name) {
  if (hs::load_acquire(hs_real_dlsym) == nullptr) {
#if defined(__x86_64__)
    void* real = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
#else
    void* real = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.17");
#endif
    hs::store_release(hs_real_dlsym, reinterpret_cast<void* (*)(void*, const char*)>(real));
  }
  if (is_name(name, "mallinfo2")) return reinterpret_cast<void*>(mallinfo2);
  if (is_name(name, "mallinfo")) return reinterpret_cast<void*>(mallinfo);
  return nullptr;
}
#pragma GCC diagnostic pop

}  // extern "C"

#if defined(__x86_64__)
__asm__(
    ".pushsection .text\n"
    ".globl dlsym\n"
    ".type dlsym, @function\n"
    "dlsym:\n"
    "  endbr64\n"
    "  pushq %rdi\n"
    "  pushq %rsi\n"
    "  subq $8, %rsp\n"
    "  movq %rsi, %rdi\n"
    "  call hs_answer_dlsym\n"
    "  addq $8, %rsp\n"
    "  popq %rsi\n"
    "  popq %rdi\n"
    "  testq %rax, %rax\n"
    "  jz 1f\n"
    "  ret\n"
    "1:\n"
    "  jmp *hs_real_dlsym(%rip)\n"
    ".size dlsym, . - dlsym\n"
    ".popsection\n");
#else
__asm__(
    ".pushsection .text\n"
    ".globl dlsym\n"
    ".type dlsym, %function\n"
    "dlsym:\n"
    "  stp x29, x30, [sp, #-32]!\n"
    "  stp x0, x1, [sp, #16]\n"
    "  mov x0, x1\n"
    "  bl hs_answer_dlsym\n"
    "  mov x9, x0\n"
    "  ldp x0, x1, [sp, #16]\n"
    "  ldp x29, x30, [sp], #32\n"
    "  cbz x9, 1f\n"
    "  mov x0, x9\n"
    "  ret\n"
    "1:\n"
    "  adrp x9, hs_real_dlsym\n"
    "  ldr x9, [x9, :lo12:hs_real_dlsym]\n"
    "  br x9\n"
    ".size dlsym, . - dlsym\n"
    ".popsection\n");
#endif
#endif

#endif  // __GLIBC__
