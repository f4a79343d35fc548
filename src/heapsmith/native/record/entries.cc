#include "record/entries.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/bounded_lock.h"
#include "base/compiler.h"
#include "os/process.h"
#include "record/unwind.h"
#include "wire/region.h"

namespace hs::record {

namespace {

#if defined(__x86_64__)
constexpr uint32_t kJumpSlot = R_X86_64_JUMP_SLOT;
constexpr uint32_t kGlobalData = R_X86_64_GLOB_DAT;
#else
constexpr uint32_t kJumpSlot = R_AARCH64_JUMP_SLOT;
constexpr uint32_t kGlobalData = R_AARCH64_GLOB_DAT;
#endif

// Of the names that this library defines, those that a call has to come to; not those around exit and fork, which are
// watched otherwise here.
constexpr const char* kNames[] = {
    "malloc",
    "free",
    "calloc",
    "realloc",
    "reallocarray",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "malloc_usable_size",
    "cfree",
    "mmap",
    "mmap64",
    "munmap",
    "mremap",
    "_exit",
    "_Exit",
    "_Znwm",
    "_Znam",
    "_ZnwmRKSt9nothrow_t",
    "_ZnamRKSt9nothrow_t",
    "_ZnwmSt11align_val_t",
    "_ZnamSt11align_val_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t",
    "_ZnamSt11align_val_tRKSt9nothrow_t",
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvm",
    "_ZdaPvm",
    "_ZdlPvRKSt9nothrow_t",
    "_ZdaPvRKSt9nothrow_t",
    "_ZdlPvSt11align_val_t",
    "_ZdaPvSt11align_val_t",
    "_ZdlPvmSt11align_val_t",
    "_ZdaPvmSt11align_val_t",
    "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t",
};
constexpr uint32_t kNameCount = sizeof kNames / sizeof kNames[0];
void* ours[kNameCount];
void* own_base = nullptr;

void* (*next_dlsym)(void*, const char*) = nullptr;
unsigned long long seen_loads = 0;
unsigned long long seen_unloads = 0;
BoundedLock entries_lock;

void redirect_new_objects();

// Looks the symbol up as the caller would have: this function leaves by a jump, so that the linker sees who asks.
void* look_up(void* object, const char* name) {
  redirect_new_objects();
  return next_dlsym(object, name);
}

void* replacement_of(const char* name) {
  for (uint32_t index = 0; index < kNameCount; ++index) {
    if (strcmp(kNames[index], name) == 0) return ours[index];
  }
  return strcmp(name, "dlsym") == 0 ? reinterpret_cast<void*>(look_up) : nullptr;
}

struct Object {
  uintptr_t base;
  uintptr_t protected_begin;  // what the linker has made read-only
  uintptr_t protected_end;
  const ElfW(Sym) * symbols;
  const char* names;
};

void redirect(const Object& object, const ElfW(Rela) * entries, size_t bytes) {
  for (size_t at = 0; at < bytes / sizeof *entries; ++at) {
    const uint32_t kind = static_cast<uint32_t>(ELF64_R_TYPE(entries[at].r_info));
    if (kind != kJumpSlot && kind != kGlobalData) continue;
    const auto symbol = static_cast<uint32_t>(ELF64_R_SYM(entries[at].r_info));
    void* replacement = replacement_of(object.names + object.symbols[symbol].st_name);
    if (replacement == nullptr) continue;
    const uintptr_t place = object.base + entries[at].r_offset;
    const uintptr_t page = place & ~uintptr_t{wire::kPageBytes - 1};
    const bool is_protected = place >= object.protected_begin && place < object.protected_end;
    if (is_protected && syscall(SYS_mprotect, page, wire::kPageBytes, PROT_READ | PROT_WRITE) != 0) continue;
    store_release(*reinterpret_cast<void**>(place), replacement);
    if (is_protected) syscall(SYS_mprotect, page, wire::kPageBytes, PROT_READ);
  }
}

int redirect_object(dl_phdr_info* info, size_t, void*) {
  Object object = {info->dlpi_addr, 0, 0, nullptr, nullptr};
  const ElfW(Dyn)* dynamic = nullptr;
  for (int number = 0; number < info->dlpi_phnum; ++number) {
    const ElfW(Phdr) & header = info->dlpi_phdr[number];
    if (header.p_type == PT_DYNAMIC) dynamic = reinterpret_cast<const ElfW(Dyn)*>(info->dlpi_addr + header.p_vaddr);
    if (header.p_type == PT_GNU_RELRO) {
      object.protected_begin = info->dlpi_addr + header.p_vaddr;
      object.protected_end = object.protected_begin + header.p_memsz;
    }
  }
  const char* slash = strrchr(info->dlpi_name, '/');
  const char* name = slash == nullptr ? info->dlpi_name : slash + 1;
  // The linker's own blocks are given back by whoever gave them; another library of ours has its reasons.
  if (dynamic == nullptr || strncmp(name, "ld-linux", 8) == 0 || strncmp(name, "libheapsmith", 12) == 0 ||
      strncmp(name, "linux-vdso", 10) == 0 || reinterpret_cast<void*>(info->dlpi_addr) == own_base) {
    return 0;
  }
  const ElfW(Rela)* calls = nullptr;
  const ElfW(Rela)* data = nullptr;
  size_t call_bytes = 0;
  size_t data_bytes = 0;
  for (; dynamic->d_tag != DT_NULL; ++dynamic) {
    // Some linkers leave these as they were in the file.
    const uintptr_t value = dynamic->d_un.d_ptr;
    const uintptr_t address = value < info->dlpi_addr ? info->dlpi_addr + value : value;
    switch (dynamic->d_tag) {
      case DT_JMPREL:
        calls = reinterpret_cast<const ElfW(Rela)*>(address);
        break;
      case DT_PLTRELSZ:
        call_bytes = value;
        break;
      case DT_RELA:
        data = reinterpret_cast<const ElfW(Rela)*>(address);
        break;
      case DT_RELASZ:
        data_bytes = value;
        break;
      case DT_SYMTAB:
        object.symbols = reinterpret_cast<const ElfW(Sym)*>(address);
        break;
      case DT_STRTAB:
        object.names = reinterpret_cast<const char*>(address);
        break;
      default:
        break;
    }
  }
  if (object.symbols == nullptr || object.names == nullptr) return 0;
  if (calls != nullptr) redirect(object, calls, call_bytes);
  if (data != nullptr) redirect(object, data, data_bytes);
  return 0;
}

int read_loads(dl_phdr_info* info, size_t, void* is_new) {
  *static_cast<bool*>(is_new) = info->dlpi_adds != seen_loads || info->dlpi_subs != seen_unloads;
  if (info->dlpi_subs != seen_unloads) forget_rules();
  seen_loads = info->dlpi_adds;
  seen_unloads = info->dlpi_subs;
  return 1;
}

void redirect_new_objects() {
  const os::KeepErrno keep;
  if (!entries_lock.lock(os::yield_processor)) return;
  bool is_new = false;
  dl_iterate_phdr(read_loads, &is_new);
  if (is_new) dl_iterate_phdr(redirect_object, nullptr);
  entries_lock.unlock();
}

}  // namespace

void redirect_calls() {
  Dl_info own;
  if (dladdr(reinterpret_cast<void*>(redirect_calls), &own) == 0) return;
  own_base = own.dli_fbase;
  void* self = dlopen(own.dli_fname, RTLD_NOLOAD | RTLD_LAZY);
  for (uint32_t index = 0; index < kNameCount; ++index) ours[index] = dlsym(self, kNames[index]);
  next_dlsym = reinterpret_cast<void* (*)(void*, const char*)>(dlsym(RTLD_NEXT, "dlsym"));
  if (next_dlsym == nullptr) next_dlsym = dlsym;
  dlerror();
  seen_loads = seen_unloads = 0;
  redirect_new_objects();
}

}  // namespace hs::record
