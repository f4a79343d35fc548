#include "record/modules.h"

#include <elf.h>
#include <link.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/bounded_lock.h"
#include "os/process.h"
#include "os/shared_memory.h"
#include "record/recording.h"
#include "wire/region.h"

extern "C" {
// What _dl_find_object of newer C libraries fills in (dl_find_object(3)); declared here, for older headers lack it.
struct FoundLinkedObject {
  unsigned long long flags;
  void* begin;
  void* end;
  link_map* map;
  void* unwinding;
  unsigned long long reserved[7];
};
int find_linked_object(void* code, FoundLinkedObject*) __asm__("_dl_find_object") __attribute__((weak));
}

namespace hs::record {

namespace {

struct Seen {
  uintptr_t begin;
  uintptr_t end;
  bool is_here;
};

// What is noted stays noted, in this process and in its forked children.
wire::Module noted[256];
Seen seen[256];
uint32_t noted_count = 0;
constexpr uint32_t kNotedCapacity = sizeof noted / sizeof noted[0];
BoundedLock modules_lock;

void find_build_id(wire::Module& module, uintptr_t begin) {
  const auto* elf = reinterpret_cast<const ElfW(Ehdr)*>(begin);
  if (memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0) return;
  const auto* headers = reinterpret_cast<const ElfW(Phdr)*>(begin + elf->e_phoff);
  for (uint32_t number = 0; number < elf->e_phnum; ++number) {
    if (headers[number].p_type != PT_NOTE) continue;
    const uintptr_t notes = module.bias + headers[number].p_vaddr;
    for (size_t at = 0; at + sizeof(ElfW(Nhdr)) < headers[number].p_memsz;) {
      const auto* note = reinterpret_cast<const ElfW(Nhdr)*>(notes + at);
      const auto* name = reinterpret_cast<const char*>(note + 1);
      const size_t name_bytes = (note->n_namesz + 3u) & ~size_t{3};
      if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && memcmp(name, "GNU", 4) == 0) {
        module.build_id_bytes =
            note->n_descsz < sizeof module.build_id ? note->n_descsz : uint32_t{sizeof module.build_id};
        memcpy(module.build_id, name + name_bytes, module.build_id_bytes);
        return;
      }
      at += sizeof *note + name_bytes + ((note->n_descsz + 3u) & ~size_t{3});
    }
  }
}

void write_module(uint32_t index) {
  if (recording.header == nullptr) return;
  auto* modules =
      reinterpret_cast<wire::Module*>(reinterpret_cast<char*>(recording.header) + wire::kModulesOffsetBytes);
  static_assert(wire::kPageBytes % sizeof(wire::Module) == 0);
  if (index % (wire::kPageBytes / sizeof(wire::Module)) == 0 && !os::back_page(&modules[index])) return;
  modules[index] = noted[index];
  store_release(recording.header->modules_used, index + 1);
}

uint32_t note(const FoundLinkedObject& object) {
  const auto begin = reinterpret_cast<uintptr_t>(object.begin);
  const auto end = reinterpret_cast<uintptr_t>(object.end);
  for (uint32_t index = 0; index < noted_count; ++index) {
    if (seen[index].begin == begin && seen[index].end == end && seen[index].is_here) return index + 1;
  }
  if (!modules_lock.lock(os::yield_processor)) return 0;
  uint32_t number = 0;
  if (noted_count < kNotedCapacity) {
    const uint32_t index = noted_count;
    wire::Module& module = noted[index];
    module.begin = begin;
    module.end = end;
    module.bias = object.map->l_addr;
    const char* name = object.map->l_name;
    if (name == nullptr || name[0] == '\0') {
      const os::KeepErrno keep;
      const long bytes = syscall(SYS_readlink, "/proc/self/exe", module.path, sizeof module.path - 1);
      if (bytes > 0) module.path[bytes] = '\0';
    } else {
      strncpy(module.path, name, sizeof module.path - 1);
    }
    find_build_id(module, begin);
    // The same file at the same place again is the same module.
    for (uint32_t before = 0; before < index; ++before) {
      if (memcmp(&noted[before], &module, sizeof module) == 0) {
        seen[before].is_here = true;
        module = {};
        modules_lock.unlock();
        return before + 1;
      }
    }
    seen[index] = {begin, end, true};
    write_module(index);
    store_release(noted_count, index + 1);
    number = index + 1;
  }
  modules_lock.unlock();
  return number;
}

struct Search {
  uintptr_t code;
  FoundLinkedObject found;
  link_map map;
};

int match(dl_phdr_info* object, size_t, void* data) {
  auto& search = *static_cast<Search*>(data);
  uintptr_t begin = UINTPTR_MAX;
  uintptr_t end = 0;
  for (int number = 0; number < object->dlpi_phnum; ++number) {
    const ElfW(Phdr) & header = object->dlpi_phdr[number];
    const uintptr_t from = object->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_GNU_EH_FRAME) search.found.unwinding = reinterpret_cast<void*>(from);
    if (header.p_type != PT_LOAD) continue;
    if (from < begin) begin = from;
    if (from + header.p_memsz > end) end = from + header.p_memsz;
  }
  if (search.code < begin || search.code >= end) {
    search.found.unwinding = nullptr;
    return 0;
  }
  search.map.l_addr = object->dlpi_addr;
  search.map.l_name = const_cast<char*>(object->dlpi_name);
  search.found.begin = reinterpret_cast<void*>(begin);
  search.found.end = reinterpret_cast<void*>(end);
  search.found.map = &search.map;
  return 1;
}

}  // namespace

FoundModule find_module(uintptr_t code) {
  Search search = {code, {}, {}};
  const bool is_found = find_linked_object != nullptr
                            ? find_linked_object(reinterpret_cast<void*>(code), &search.found) == 0
                            : dl_iterate_phdr(match, &search) == 1;
  if (!is_found) return {};
  return {note(search.found), static_cast<const uint8_t*>(search.found.unwinding),
          reinterpret_cast<uintptr_t>(search.found.begin), reinterpret_cast<uintptr_t>(search.found.end)};
}

void write_modules() {
  for (uint32_t index = 0; index < noted_count; ++index) write_module(index);
}

void forget_module_places() {
  for (uint32_t index = 0; index < noted_count; ++index) store_relaxed(seen[index].is_here, false);
}

}  // namespace hs::record
