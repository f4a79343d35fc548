// Lets a program whose sanitizer has to come first run without what is preloaded into it: whoever starts it, a shell or
// make, hands the preload on, and it would refuse to start.
//
// Linked to be initialised before every other library (-z initfirst), so before a sanitizer can look around or anybody
// allocates. It then executes the program again, with LD_PRELOAD shortened: this library and all that stand before it in
// the list are heapsmith's. Nothing of the C library is ready yet, and its functions may be the sanitizer's: only system
// calls are made, and the caller's memory is put back as it was should the kernel refuse.
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "os/system_call.h"

// glibc's linker has it; a program of another C library is left alone.
extern r_debug _r_debug __attribute__((weak));

namespace {

using hs::system_call;

constexpr const char* kOwnName = "libheapsmith_gate.so";
constexpr char kVariable[] = "LD_PRELOAD=";
constexpr size_t kVariableBytes = sizeof kVariable - 1;
constexpr const char* kImage = "/proc/self/exe";
constexpr const char* kMustBeFirst[] = {"libasan.so",       "liblsan.so",        "libtsan.so",
                                        "libhwasan.so",     "libclang_rt.asan",  "libclang_rt.lsan",
                                        "libclang_rt.tsan", "libclang_rt.hwasan"};

bool begins_with(const char* text, const char* beginning) {
  while (*beginning != '\0') {
    if (*text++ != *beginning++) return false;
  }
  return true;
}

const char* name_in(const char* path) {
  const char* name = path;
  for (const char* at = path; *at != '\0'; ++at) {
    if (*at == '/') name = at + 1;
  }
  return name;
}

bool has_sanitizer() {
  for (const link_map* object = _r_debug.r_map; object != nullptr; object = object->l_next) {
    const char* name = name_in(object->l_name);
    for (const char* first : kMustBeFirst) {
      if (begins_with(name, first)) return true;
    }
  }
  return false;
}

uint64_t auxiliary_value(char** environment, uint64_t kind) {
  char** end = environment;
  while (*end != nullptr) ++end;
  for (auto* entry = reinterpret_cast<const Elf64_auxv_t*>(end + 1); entry->a_type != AT_NULL; ++entry) {
    if (entry->a_type == kind) return entry->a_un.a_val;
  }
  return 0;
}

bool look_at(const char* path, struct statx& file) {
  return system_call(SYS_statx, AT_FDCWD, reinterpret_cast<long>(path), 0, STATX_INO, reinterpret_cast<long>(&file)) ==
         0;
}

bool is_image(const char* path) {
  struct statx image = {};
  struct statx file = {};
  return look_at(kImage, image) && look_at(path, file) && image.stx_ino == file.stx_ino &&
         image.stx_dev_major == file.stx_dev_major && image.stx_dev_minor == file.stx_dev_minor;
}

// What comes after this library in the list; null where it is not in it, as when it is there already for the second time.
char* after_own(char* list) {
  for (char* entry = list; *entry != '\0';) {
    char* end = entry;
    while (*end != '\0' && *end != ':' && *end != ' ') ++end;
    const char separator = *end;
    *end = '\0';
    const char* name = name_in(entry);
    const bool is_own = begins_with(name, kOwnName) && begins_with(kOwnName, name);
    *end = separator;
    char* next = separator == '\0' ? end : end + 1;
    if (is_own) return next;
    entry = next;
  }
  return nullptr;
}

// The file to execute: by the name it was executed by, unless that was a script's.
const char* executable(char** environment) {
  const auto* executed = reinterpret_cast<const char*>(auxiliary_value(environment, AT_EXECFN));
  if (executed != nullptr && is_image(executed)) return executed;
  static char resolved[4096];
  const long length = system_call(SYS_readlinkat, AT_FDCWD, reinterpret_cast<long>(kImage),
                                  reinterpret_cast<long>(resolved), sizeof resolved - 1);
  return length > 0 && is_image(resolved) ? resolved : kImage;
}

void execute(const char* file, char** arguments, char** environment) {
  system_call(SYS_execve, reinterpret_cast<long>(file), reinterpret_cast<long>(arguments),
              reinterpret_cast<long>(environment));
}

void execute_without_variable(const char* file, char** arguments, char** environment, char** variable) {
  char* const whole = *variable;
  char** last = variable;
  for (; last[1] != nullptr; ++last) last[0] = last[1];
  *last = nullptr;
  execute(file, arguments, environment);
  for (; last != variable; --last) last[0] = last[-1];
  *variable = whole;
}

// The shorter variable is written over the end of what it leaves out.
void execute_with_rest(const char* file, char** arguments, char** environment, char** variable, char* rest) {
  char* const whole = *variable;
  char* const shortened = rest - kVariableBytes;
  char kept[kVariableBytes];
  for (size_t at = 0; at < kVariableBytes; ++at) {
    kept[at] = shortened[at];
    shortened[at] = kVariable[at];
  }
  *variable = shortened;
  execute(file, arguments, environment);
  *variable = whole;
  for (size_t at = 0; at < kVariableBytes; ++at) shortened[at] = kept[at];
}

__attribute__((constructor)) void enter(int, char** arguments, char** environment) {
  if (&_r_debug == nullptr || !has_sanitizer()) return;
  // Where the linker itself was executed and the program is its argument, there is no image to execute again.
  if (auxiliary_value(environment, AT_BASE) == 0) return;
  for (char** variable = environment; *variable != nullptr; ++variable) {
    if (!begins_with(*variable, kVariable)) continue;
    char* rest = after_own(*variable + kVariableBytes);
    if (rest == nullptr) return;
    const char* file = executable(environment);
    if (*rest == '\0') return execute_without_variable(file, arguments, environment, variable);
    return execute_with_rest(file, arguments, environment, variable, rest);
  }
}

}  // namespace
