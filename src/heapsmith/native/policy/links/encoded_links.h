// EncodedLinks: the link in a free block is mixed with a secret and with the place it stands at.
//
// Promise: who can write into a free block cannot make malloc hand out an address of their choice: a link
// that decodes to anything but a multiple of 8 ends the program.
#pragma once

#include "base/bits.h"
#include "base/compiler.h"
#include "os/die.h"
#include "os/secret.h"

namespace hs {

struct EncodedLinks {
  static constexpr bool random_order = false;
  static constexpr bool scrubs = false;

  HS_FAST_PATH static void* next(void* block) {
    const uintptr_t link = *static_cast<uintptr_t*>(block) ^ mask(block);
    if (HS_UNLIKELY((link & 7) != 0 || link >> address_bits != 0))
      die("malloc()", "a freed block was written to", block);
    return pointer_to(link);
  }
  HS_FAST_PATH static void set_next(void* block, void* next) {
    *static_cast<uintptr_t*>(block) = address_of(next) ^ mask(block);
  }

 private:
  HS_FAST_PATH static uintptr_t mask(const void* block) { return process_secret() ^ (address_of(block) >> page_shift); }
};

}  // namespace hs
