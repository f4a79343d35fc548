// Whether this process runs under Valgrind: asked by the words that it, and no processor, understands.
#pragma once

#include <stdint.h>

namespace hs::os {

inline bool is_under_valgrind() {
  // Client request RUNNING_ON_VALGRIND (valgrind.h): the rotations add up to none.
  [[maybe_unused]] uint64_t request[6] = {0x1001, 0, 0, 0, 0, 0};
  uint64_t answer = 0;
#if defined(__x86_64__)
  __asm__ volatile(
      "rolq $3, %%rdi; rolq $13, %%rdi\n\t"
      "rolq $61, %%rdi; rolq $51, %%rdi\n\t"
      "xchgq %%rbx, %%rbx"
      : "=d"(answer)
      : "a"(request), "0"(answer)
      : "cc", "memory");
#elif defined(__aarch64__)
  __asm__ volatile(
      "mov x3, %1\n\t"
      "mov x4, %2\n\t"
      "ror x12, x12, #3; ror x12, x12, #13\n\t"
      "ror x12, x12, #51; ror x12, x12, #61\n\t"
      "orr x10, x10, x10\n\t"
      "mov %0, x3"
      : "=r"(answer)
      : "r"(answer), "r"(request)
      : "cc", "memory", "x3", "x4");
#endif
  return answer != 0;
}

}  // namespace hs::os
