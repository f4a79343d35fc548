// operator new and delete over the heap. There is no C++ runtime here: when there is no memory, the program's own operator
// new is asked, so that its new-handler runs and its bad_alloc is thrown.
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <initializer_list>

#include "abi/heap.h"
#include "abi/ways.h"

namespace std {
struct nothrow_t;
enum class align_val_t : size_t {};
}  // namespace std

using hs::TheCounted;
using hs::TheHeap;

namespace {

// No operator new can have this; asking for it makes one throw whatever heap it stands on.
constexpr size_t kImpossibleBytes = size_t{PTRDIFF_MAX} - 4096;

void* find_in(const char* library_name, const char* symbol) {
  void* library = dlopen(library_name, RTLD_NOLOAD | RTLD_LAZY);
  if (library == nullptr) return nullptr;
  void* found = dlsym(library, symbol);
  dlclose(library);
  return found;
}

// The operator that would have been called without us: after us in the search order, or in what the caller was linked to.
void* find_operator(const char* symbol, const void* caller) {
  void* found = dlsym(RTLD_NEXT, symbol);
  // An allocator's own would not hear of our refusal, and some cannot throw.
  if (found != nullptr && TheCounted::is_last_failure_refused() && TheHeap::is_own_code(found)) {
    for (const char* runtime : {"libstdc++.so.6", "libc++.so.1"}) {
      if (void* throws = find_in(runtime, symbol)) return throws;
    }
  }
  Dl_info object;
  if (found == nullptr && dladdr(caller, &object) != 0) found = find_in(object.dli_fname, symbol);
  return found;
}

template <class Operator>
Operator prepare_to_ask(const char* symbol, const void* caller, size_t& bytes) {
  void* found = find_operator(symbol, caller);
  dlerror();  // what was not found is no error of the program's
  if (found == nullptr) abort();
  if (TheHeap::is_own_code(found)) {
    bytes = kImpossibleBytes;  // it might succeed, uncounted
  } else {
    TheCounted::take_back_failure();  // it asks malloc again, where the failure is counted
  }
  return reinterpret_cast<Operator>(found);
}

HS_SLOW_PATH void* ask_program(const char* symbol, size_t bytes, const void* caller) {
  auto* ask = prepare_to_ask<void* (*)(size_t)>(symbol, caller, bytes);
  return ask(bytes);
}

HS_SLOW_PATH void* ask_program_aligned(const char* symbol, size_t bytes, std::align_val_t alignment,
                                       const void* caller) {
  auto* ask = prepare_to_ask<void* (*)(size_t, std::align_val_t)>(symbol, caller, bytes);
  return ask(bytes, alignment);
}

using hs::Family;
using hs::made;

// What is asked for as nothing is made as one byte, and given back as such.
HS_FAST_PATH void give_back(Family family, void* block, bool is_aligned = false, size_t said_bytes = hs::unsaid_bytes) {
  hs::give_back({family, is_aligned}, block, HS_LIKELY(said_bytes != 0) ? said_bytes : 1);
}

HS_FAST_PATH void* allocate(size_t bytes, Family family) {
  return hs::for_caller(made(TheCounted::allocate(HS_LIKELY(bytes != 0) ? bytes : 1), {family, false}));
}

HS_FAST_PATH void* allocate_aligned(size_t bytes, std::align_val_t alignment, Family family) {
  void* block = nullptr;
  size_t at_least = static_cast<size_t>(alignment);
  if (at_least < sizeof(void*)) at_least = sizeof(void*);
  return hs::for_caller(
      made(posix_memalign(&block, at_least, bytes != 0 ? bytes : 1) == 0 ? block : nullptr, {family, true}));
}

HS_SLOW_PATH void* ask_program_nothrow(const char* symbol, size_t bytes, const std::nothrow_t& tag,
                                       const void* caller) {
  auto* ask = prepare_to_ask<void* (*)(size_t, const std::nothrow_t&)>(symbol, caller, bytes);
  return ask(bytes, tag);
}

HS_SLOW_PATH void* ask_program_aligned_nothrow(const char* symbol, size_t bytes, std::align_val_t alignment,
                                               const std::nothrow_t& tag, const void* caller) {
  auto* ask = prepare_to_ask<void* (*)(size_t, std::align_val_t, const std::nothrow_t&)>(symbol, caller, bytes);
  return ask(bytes, alignment, tag);
}

}  // namespace

#define HS_CALLER __builtin_return_address(0)

HS_HOT_EXPORT void* operator new(size_t bytes) {
  void* block = allocate(bytes, Family::scalar_new);
  return HS_LIKELY(block != nullptr) ? block
                                     : made(ask_program("_Znwm", bytes, HS_CALLER), {Family::scalar_new, false});
}
HS_HOT_EXPORT void* operator new[](size_t bytes) {
  void* block = allocate(bytes, Family::array_new);
  return HS_LIKELY(block != nullptr) ? block : made(ask_program("_Znam", bytes, HS_CALLER), {Family::array_new, false});
}
HS_EXPORT void* operator new(size_t bytes, const std::nothrow_t& tag) noexcept {
  void* block = allocate(bytes, Family::scalar_new);
  return HS_LIKELY(block != nullptr)
             ? block
             : made(ask_program_nothrow("_ZnwmRKSt9nothrow_t", bytes, tag, HS_CALLER), {Family::scalar_new, false});
}
HS_EXPORT void* operator new[](size_t bytes, const std::nothrow_t& tag) noexcept {
  void* block = allocate(bytes, Family::array_new);
  return HS_LIKELY(block != nullptr)
             ? block
             : made(ask_program_nothrow("_ZnamRKSt9nothrow_t", bytes, tag, HS_CALLER), {Family::array_new, false});
}
HS_EXPORT void* operator new(size_t bytes, std::align_val_t alignment) {
  void* block = allocate_aligned(bytes, alignment, Family::scalar_new);
  return HS_LIKELY(block != nullptr) ? block
                                     : made(ask_program_aligned("_ZnwmSt11align_val_t", bytes, alignment, HS_CALLER),
                                            {Family::scalar_new, true});
}
HS_EXPORT void* operator new[](size_t bytes, std::align_val_t alignment) {
  void* block = allocate_aligned(bytes, alignment, Family::array_new);
  return HS_LIKELY(block != nullptr) ? block
                                     : made(ask_program_aligned("_ZnamSt11align_val_t", bytes, alignment, HS_CALLER),
                                            {Family::array_new, true});
}
HS_EXPORT void* operator new(size_t bytes, std::align_val_t alignment, const std::nothrow_t& tag) noexcept {
  void* block = allocate_aligned(bytes, alignment, Family::scalar_new);
  return HS_LIKELY(block != nullptr)
             ? block
             : made(ask_program_aligned_nothrow("_ZnwmSt11align_val_tRKSt9nothrow_t", bytes, alignment, tag, HS_CALLER),
                    {Family::scalar_new, true});
}
HS_EXPORT void* operator new[](size_t bytes, std::align_val_t alignment, const std::nothrow_t& tag) noexcept {
  void* block = allocate_aligned(bytes, alignment, Family::array_new);
  return HS_LIKELY(block != nullptr)
             ? block
             : made(ask_program_aligned_nothrow("_ZnamSt11align_val_tRKSt9nothrow_t", bytes, alignment, tag, HS_CALLER),
                    {Family::array_new, true});
}

HS_HOT_EXPORT void operator delete(void* block) noexcept { give_back(Family::scalar_new, block); }
HS_HOT_EXPORT void operator delete[](void* block) noexcept { give_back(Family::array_new, block); }
HS_HOT_EXPORT void operator delete(void* block, size_t bytes) noexcept {
  give_back(Family::scalar_new, block, false, bytes);
}
HS_HOT_EXPORT void operator delete[](void* block, size_t bytes) noexcept {
  give_back(Family::array_new, block, false, bytes);
}
HS_EXPORT void operator delete(void* block, const std::nothrow_t&) noexcept { give_back(Family::scalar_new, block); }
HS_EXPORT void operator delete[](void* block, const std::nothrow_t&) noexcept { give_back(Family::array_new, block); }
HS_EXPORT void operator delete(void* block, std::align_val_t) noexcept { give_back(Family::scalar_new, block, true); }
HS_EXPORT void operator delete[](void* block, std::align_val_t) noexcept { give_back(Family::array_new, block, true); }
HS_EXPORT void operator delete(void* block, size_t bytes, std::align_val_t) noexcept {
  give_back(Family::scalar_new, block, true, bytes);
}
HS_EXPORT void operator delete[](void* block, size_t bytes, std::align_val_t) noexcept {
  give_back(Family::array_new, block, true, bytes);
}
HS_EXPORT void operator delete(void* block, std::align_val_t, const std::nothrow_t&) noexcept {
  give_back(Family::scalar_new, block, true);
}
HS_EXPORT void operator delete[](void* block, std::align_val_t, const std::nothrow_t&) noexcept {
  give_back(Family::array_new, block, true);
}
