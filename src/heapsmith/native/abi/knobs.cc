// HEAPSMITH_HEAP=limit=512MiB,purge_delay=10ms,cache=64KiB,huge_pages=on,purge=lazy,shown=off
//
// Bytes are a number with B, KiB, MiB, GiB or TiB, or none; durations one with ms, s or min, or none for milliseconds.
// `heapsmith run --allocator default:limit=1GiB` checks its knobs before it starts anything; here is who checks what was
// set by hand.
#include "abi/knobs.h"

#include <stdlib.h>
#include <string.h>

#include "abi/heap.h"
#include "os/say.h"
#include "policy/knobs.h"

namespace hs::launch_knobs {

bool is_shown = true;

namespace {

constexpr size_t kLeastLimitBytes = 1024 * 1024;
constexpr size_t kLeastCacheBytes = 1024;
constexpr size_t kMostWordBytes = 48;

struct Unit {
  const char* name;
  uint64_t worth;
};
constexpr Unit kByteUnits[] = {{"", 1},           {"B", 1},          {"KiB", 1u << 10},
                               {"MiB", 1u << 20}, {"GiB", 1u << 30}, {"TiB", uint64_t{1} << 40}};
constexpr Unit kTimeUnits[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"min", 60000}};

// A whole number, or one with one decimal part ("1.5GiB"), and a unit.
template <size_t count>
bool read_quantity(const char* text, const Unit (&units)[count], uint64_t& value) {
  constexpr uint64_t kMost = uint64_t{1} << 62;
  uint64_t whole = 0;
  uint64_t part = 0;
  uint64_t parts = 1;
  const char* at = text;
  for (; *at >= '0' && *at <= '9'; ++at) {
    if (whole > kMost / 10) return false;
    whole = whole * 10 + static_cast<uint64_t>(*at - '0');
  }
  if (at == text) return false;
  if (*at == '.') {
    for (++at; *at >= '0' && *at <= '9'; ++at) {
      if (parts > 1'000'000) return false;
      parts *= 10;
      part = part * 10 + static_cast<uint64_t>(*at - '0');
    }
  }
  for (const Unit& unit : units) {
    if (strcmp(at, unit.name) != 0) continue;
    if (whole > kMost / unit.worth) return false;
    value = whole * unit.worth + part * unit.worth / parts;
    return true;
  }
  return false;
}

bool is_on(const char* text) { return strcmp(text, "on") == 0 || strcmp(text, "true") == 0; }
bool is_off(const char* text) { return strcmp(text, "off") == 0 || strcmp(text, "false") == 0; }

// Each answers what would have been right, or null when it was.
const char* set_limit(const char* text) {
  uint64_t bytes = 0;
  if (!read_quantity(text, kByteUnits, bytes) || bytes < kLeastLimitBytes) return "1MiB or more, as 512MiB";
  knobs.limit_bytes = bytes;
  return nullptr;
}
const char* set_purge_delay(const char* text) {
  uint64_t milliseconds = Knobs::never_ms;
  if (strcmp(text, "never") != 0 && !read_quantity(text, kTimeUnits, milliseconds)) return "a time as 10ms, or never";
  knobs.purge_delay_ms = milliseconds;
  return nullptr;
}
const char* set_cache(const char* text) {
  uint64_t bytes = 0;
  if (!SpecHeap::Cache::caches) return "nothing: this heap was forged without thread caches";
  if (!read_quantity(text, kByteUnits, bytes) || bytes < kLeastCacheBytes) return "1KiB or more, as 64KiB";
  knobs.cache_bytes = bytes;
  return nullptr;
}
const char* set_huge_pages(const char* text) {
  if (is_on(text)) {
    knobs.huge_pages = HugePageWish::transparent;
  } else if (is_off(text)) {
    knobs.huge_pages = HugePageWish::off;
  } else if (strcmp(text, "reserved") == 0) {
    knobs.huge_pages = HugePageWish::reserved;
  } else {
    return "on, off or reserved";
  }
  return nullptr;
}
const char* set_purge(const char* text) {
  if (strcmp(text, "now") != 0 && strcmp(text, "lazy") != 0) return "now or lazy";
  knobs.purge = text[0] == 'l' ? PurgeWish::lazily : PurgeWish::at_once;
  return nullptr;
}
const char* set_shown(const char* text) {
  if (!is_on(text) && !is_off(text)) return "on or off";
  is_shown = is_on(text);
  return nullptr;
}

struct Setter {
  const char* name;
  const char* (*set)(const char* text);
};
constexpr Setter kSetters[] = {{"limit", set_limit}, {"purge_delay", set_purge_delay},
                               {"cache", set_cache}, {"huge_pages", set_huge_pages},
                               {"purge", set_purge}, {"shown", set_shown}};

// The one line that says everything that was wrong.
class Complaint {
 public:
  void add(const char* words, const char* end = nullptr) {
    while (words != end && *words != '\0' && length_ < sizeof text_ - 1) text_[length_++] = *words++;
  }
  bool is_empty() const { return length_ == 0; }
  void begin() { add(length_ == 0 ? "HEAPSMITH_HEAP: " : "; "); }
  void end() {
    add(" (left as forged)");
    text_[length_] = '\0';
    say(text_);
  }

 private:
  char text_[560];
  size_t length_ = 0;
};

// Whether it was understood.
bool read_setting(const char* from, const char* to, Complaint& complaint) {
  char word[kMostWordBytes];
  const auto length = static_cast<size_t>(to - from);
  if (length == 0) return true;
  if (length < sizeof word) {
    memcpy(word, from, length);
    word[length] = '\0';
    if (char* value = strchr(word, '=')) {
      *value++ = '\0';
      for (const Setter& setter : kSetters) {
        if (strcmp(setter.name, word) != 0) continue;
        const char* right = setter.set(value);
        if (right == nullptr) return true;
        complaint.begin();
        complaint.add(from, to);
        complaint.add(" is not understood: ");
        complaint.add(word);
        complaint.add(" takes ");
        complaint.add(right);
        return false;
      }
    }
  }
  complaint.begin();
  complaint.add(from, length < sizeof word ? to : from + sizeof word);
  complaint.add(" is no knob: there are limit, purge_delay, cache, huge_pages, purge and shown, each as knob=value");
  return false;
}

}  // namespace

void read() {
  // Settings that are not understood are taken out of the variable where it stands: what this process executes or starts
  // inherits the others, and says nothing again.
  char* at = secure_getenv(kVariable);
  if (at == nullptr) return;
  Complaint complaint;
  char* good_end = at;
  bool is_any_good = false;
  for (bool is_last = false; !is_last;) {
    char* end = at;
    while (*end != '\0' && *end != ',') ++end;
    is_last = *end == '\0';
    if (read_setting(at, end, complaint)) {
      const auto length = static_cast<size_t>(end - at);
      if (is_any_good) *good_end++ = ',';
      memmove(good_end, at, length);
      good_end += length;
      is_any_good = true;
    }
    at = end + 1;
  }
  if (complaint.is_empty()) return;
  *good_end = '\0';
  complaint.end();
}

}  // namespace hs::launch_knobs
