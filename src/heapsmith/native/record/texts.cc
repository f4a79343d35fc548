#include "record/texts.h"

#include <string.h>

#include "base/atomic.h"
#include "base/bounded_lock.h"
#include "os/process.h"
#include "os/shared_memory.h"
#include "record/recording.h"
#include "wire/region.h"

namespace hs::record {

namespace {

BoundedLock texts_lock;

char* begin() { return reinterpret_cast<char*>(recording.header) + wire::kTextsOffsetBytes; }

// Backs the pages that are new.
bool reserve(uint32_t at, uint32_t count) {
  if (count > wire::kTextCapacityBytes || at > wire::kTextCapacityBytes - count) return false;
  for (size_t page = (at + wire::kPageBytes - 1) / wire::kPageBytes * wire::kPageBytes; page < size_t{at} + count;
       page += wire::kPageBytes) {
    if (!os::back_page(begin() + page)) return false;
  }
  return true;
}

uint32_t encode(uint32_t character, char* to) {
  if (character < 0x80) {
    to[0] = static_cast<char>(character);
    return 1;
  }
  const uint32_t more = character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
  for (uint32_t at = more; at > 0; --at, character >>= 6) to[at] = static_cast<char>(0x80 | (character & 0x3f));
  to[0] = static_cast<char>((0xf0u << (3 - more) & 0xffu) | character);
  return more + 1;
}

}  // namespace

uint32_t put_text(const void* bytes, uint32_t count) {
  if (!texts_lock.lock(os::yield_processor)) return UINT32_MAX;
  uint32_t at = recording.header->texts_used_bytes;
  if (reserve(at, count)) {
    memcpy(begin() + at, bytes, count);
    store_release(recording.header->texts_used_bytes, at + count);
  } else {
    at = UINT32_MAX;
  }
  texts_lock.unlock();
  return at;
}

void texts_fork_child() { texts_lock.reset(); }

uint32_t put_characters(const void* characters, uint32_t width, uint32_t count, uint32_t& bytes) {
  constexpr uint32_t kMost = 1024;
  char text[kMost + 4];
  bytes = 0;
  for (uint32_t at = 0; at < count && bytes < kMost; ++at) {
    uint32_t character = 0;
    memcpy(&character, static_cast<const char*>(characters) + size_t{at} * width, width);
    bytes += encode(character, text + bytes);
  }
  return put_text(text, bytes);
}

}  // namespace hs::record
