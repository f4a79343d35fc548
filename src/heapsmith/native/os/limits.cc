#include "os/limits.h"

#include <string.h>
#include <sys/resource.h>

#include "os/shared_memory.h"

namespace hs::os {

namespace {

constexpr uint64_t kUnlimitedFrom = 1ull << 62;
constexpr uint64_t kUnknown = UINT64_MAX;
constexpr size_t kPathBytes = 1024;

// A small file, whole, as text.
template <size_t kBytes>
bool read_text(const char* path, char (&into)[kBytes]) {
  const long count = read_file(path, into, kBytes - 1);
  if (count < 0) return false;
  into[count] = '\0';
  return true;
}

uint64_t parse_number(const char* text) {
  while (*text == ' ' || *text == '\t') ++text;
  if (*text < '0' || *text > '9') return kUnknown;  // "max", or something new
  uint64_t number = 0;
  for (; *text >= '0' && *text <= '9'; ++text) {
    if (number > UINT64_MAX / 10 - 1) return kUnknown;
    number = number * 10 + static_cast<uint64_t>(*text - '0');
  }
  return number;
}

// The number after `key` at the beginning of a line.
uint64_t find_number(const char* text, const char* key) {
  const size_t length = strlen(key);
  for (const char* line = text; line != nullptr && *line != '\0';) {
    if (strncmp(line, key, length) == 0) return parse_number(line + length);
    line = strchr(line, '\n');
    if (line != nullptr) ++line;
  }
  return kUnknown;
}

uint64_t times_1024(uint64_t kibibytes) { return kibibytes == kUnknown ? kUnknown : kibibytes * 1024; }

void keep_tighter(Bound& bound, LimitSource source, LimitEffect effect, uint64_t limit_bytes, uint64_t used_bytes) {
  if (limit_bytes >= kUnlimitedFrom || used_bytes == kUnknown) return;
  const uint64_t available_bytes = limit_bytes > used_bytes ? limit_bytes - used_bytes : 0;
  if (available_bytes < bound.available_bytes) bound = {source, effect, limit_bytes, available_bytes};
}

void read_resource_limits(Bounds& bounds) {
  char status[4096];
  const bool known = read_text("/proc/self/status", status);
  rlimit limit = {};
  if (known && getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    keep_tighter(bounds.hard, LimitSource::kRlimitData, LimitEffect::kNull, limit.rlim_cur,
                 times_1024(find_number(status, "VmData:")));
  }
  if (known && getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    keep_tighter(bounds.hard, LimitSource::kRlimitAs, LimitEffect::kNull, limit.rlim_cur,
                 times_1024(find_number(status, "VmSize:")));
  }
}

struct Group {
  LimitSource source;
  const char* root;
  const char* limit_file;
  const char* soft_file;  // null for none
  const char* used_file;
  const char* reclaimable_key;
};
constexpr Group kGroups[] = {
    {LimitSource::kCgroup2, "/sys/fs/cgroup", "memory.max", "memory.high", "memory.current", "inactive_file "},
    {LimitSource::kCgroup2, "/sys/fs/cgroup/unified", "memory.max", "memory.high", "memory.current", "inactive_file "},
    {LimitSource::kCgroup1, "/sys/fs/cgroup/memory", "memory.limit_in_bytes", nullptr, "memory.usage_in_bytes",
     "total_inactive_file "},
};

struct Path {
  char text[kPathBytes];
  size_t length;
};

bool append(Path& path, const char* text, size_t length) {
  if (path.length + length + 1 > kPathBytes) return false;
  memcpy(path.text + path.length, text, length);
  path.length += length;
  path.text[path.length] = '\0';
  return true;
}

uint64_t read_number_in(const Path& directory, const char* file) {
  Path path = directory;
  char text[64];
  if (!append(path, "/", 1) || !append(path, file, strlen(file)) || !read_text(path.text, text)) return kUnknown;
  return parse_number(text);
}

// What is charged and cannot simply be dropped: idle page cache goes before anybody is killed.
uint64_t read_used_in(const Path& directory, const Group& group) {
  const uint64_t used_bytes = read_number_in(directory, group.used_file);
  if (used_bytes == kUnknown) return kUnknown;
  Path path = directory;
  char text[8192];
  if (!append(path, "/memory.stat", 12) || !read_text(path.text, text)) return used_bytes;
  const uint64_t reclaimable_bytes = find_number(text, group.reclaimable_key);
  return reclaimable_bytes == kUnknown || reclaimable_bytes > used_bytes ? used_bytes : used_bytes - reclaimable_bytes;
}

void read_group(Bounds& bounds, const Path& directory, const Group& group) {
  const uint64_t limit_bytes = read_number_in(directory, group.limit_file);
  const uint64_t soft_bytes = group.soft_file != nullptr ? read_number_in(directory, group.soft_file) : kUnknown;
  if (limit_bytes >= kUnlimitedFrom && soft_bytes >= kUnlimitedFrom) return;
  const uint64_t used_bytes = read_used_in(directory, group);
  keep_tighter(bounds.hard, group.source, LimitEffect::kKill, limit_bytes, used_bytes);
  keep_tighter(bounds.soft, group.source, LimitEffect::kThrottle, soft_bytes, used_bytes);
}

// In a namespace of its own a container sees its group at the root; otherwise every ancestor binds as well.
void read_chain(Bounds& bounds, const Group& group, const char* path, size_t length) {
  Path directory = {};
  const size_t root_length = strlen(group.root);
  if (!append(directory, group.root, root_length)) return;
  while (length > 0 && path[length - 1] == '/') --length;
  if (!append(directory, path, length)) return;
  for (;;) {
    read_group(bounds, directory, group);
    if (directory.length <= root_length) return;
    while (directory.text[directory.length] != '/') --directory.length;
    directory.text[directory.length] = '\0';
  }
}

bool has_memory_controller(const char* controllers, const char* end) {
  constexpr char kMemory[] = "memory";
  constexpr size_t kLength = sizeof kMemory - 1;
  for (const char* at = controllers; at + kLength <= end; ++at) {
    const bool begins = at == controllers || at[-1] == ',';
    const bool ends = at[kLength] == ',' || at[kLength] == ':';
    if (begins && ends && strncmp(at, kMemory, kLength) == 0) return true;
  }
  return false;
}

void read_groups(Bounds& bounds) {
  char text[4096];
  if (!read_text("/proc/self/cgroup", text)) return;
  for (char* line = text; line != nullptr && *line != '\0';) {
    char* end = strchr(line, '\n');
    const char* controllers = strchr(line, ':');
    const char* path = controllers != nullptr ? strchr(controllers + 1, ':') : nullptr;
    if (path != nullptr) {
      ++controllers;
      const size_t length = end != nullptr ? static_cast<size_t>(end - path - 1) : strlen(path + 1);
      const bool is_unified = controllers == path;
      if (is_unified || has_memory_controller(controllers, path)) {
        for (const Group& group : kGroups) {
          if ((group.source == LimitSource::kCgroup2) == is_unified) read_chain(bounds, group, path + 1, length);
        }
      }
    }
    line = end != nullptr ? end + 1 : nullptr;
  }
}

void read_machine(Bounds& bounds) {
  char text[4096];
  if (!read_text("/proc/meminfo", text)) return;
  const auto number = [&](const char* key) {
    const uint64_t bytes = times_1024(find_number(text, key));
    return bytes == kUnknown ? 0 : bytes;
  };
  const uint64_t total_bytes = number("MemTotal:") + number("SwapTotal:");
  const uint64_t available_bytes = number("MemAvailable:") + number("SwapFree:");
  if (total_bytes == 0) return;
  keep_tighter(bounds.hard, LimitSource::kPhysical, LimitEffect::kKill, total_bytes, total_bytes - available_bytes);
  char overcommit[16];
  if (!read_text("/proc/sys/vm/overcommit_memory", overcommit) || parse_number(overcommit) != 2) return;
  keep_tighter(bounds.hard, LimitSource::kPhysical, LimitEffect::kNull, number("CommitLimit:"),
               number("Committed_AS:"));
}

}  // namespace

Bounds read_bounds() {
  Bounds bounds;
  read_resource_limits(bounds);
  read_groups(bounds);
  read_machine(bounds);
  return bounds;
}

uint64_t resident_bytes() {
  char status[4096];
  if (!read_text("/proc/self/status", status)) return 0;
  const uint64_t bytes = times_1024(find_number(status, "VmRSS:"));
  return bytes == kUnknown ? 0 : bytes;
}

}  // namespace hs::os
