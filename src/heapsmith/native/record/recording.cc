#include "record/recording.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/atomic.h"
#include "os/numbered_file.h"
#include "os/process.h"
#include "os/shared_memory.h"
#include "os/system_call.h"
#include "wire/region.h"

namespace hs::record {

Recording recording;

namespace {

constexpr size_t kBytesUnderAddressLimit = 32 * 1024 * 1024;
constexpr uint32_t kOwnerDied = 0x40000000;
constexpr uint32_t kOwnerBits = 0x3fffffff;

char told_directory[os::kPathBytes - 64];
char* base = nullptr;
size_t mapped_bytes = 0;

const char* find_directory() {
  if (told_directory[0] != '\0') return told_directory;
  const char* directory = secure_getenv(wire::kRecordVariable);
  return directory != nullptr && directory[0] == '/' && strlen(directory) < sizeof told_directory ? directory : nullptr;
}

wire::RecorderPage* map_recorder(const char* directory) {
  char path[os::kPathBytes] = {};
  const char* end = path + sizeof path - 1;
  os::append(os::append(os::append(path, end, directory), end, "/"), end, wire::kRecorderFile);
  const int file = static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0));
  if (file < 0) return nullptr;
  auto* page = static_cast<wire::RecorderPage*>(os::map_file(file, sizeof(wire::RecorderPage)));
  os::close_file(file);
  if (page == nullptr) return nullptr;
  if (load_acquire(page->magic) == wire::kRecorderMagic && page->version == wire::kRecordingVersion) return page;
  os::unmap(page, sizeof *page);
  return nullptr;
}

bool map_recording(int file) {
  mapped_bytes = os::address_space_is_limited() ? kBytesUnderAddressLimit : wire::kRecordingBytes;
  const size_t largest_bytes = os::largest_file_bytes() / wire::kRingBytesLargest * wire::kRingBytesLargest;
  if (mapped_bytes > largest_bytes) mapped_bytes = largest_bytes;
  if (mapped_bytes < wire::kDataOffsetBytes + wire::kRingBytesLargest) return false;
  if (!os::resize(file, mapped_bytes)) return false;
  base = static_cast<char*>(os::map_file(file, mapped_bytes));
  if (base == nullptr) return false;
  os::make_inaccessible(base + wire::kDataOffsetBytes, mapped_bytes - wire::kDataOffsetBytes);
  system_call(SYS_madvise, reinterpret_cast<long>(base), static_cast<long>(mapped_bytes), MADV_DONTDUMP);
  if (os::back_page(base)) return true;
  os::unmap(base, mapped_bytes);
  base = nullptr;
  return false;
}

const char* find_recorder() {
  const char* directory = find_directory();
  if (directory == nullptr) return nullptr;
  if (recording.recorder == nullptr) recording.recorder = map_recorder(directory);
  if (recording.recorder == nullptr || load_relaxed(recording.recorder->is_over) != 0 || !is_recorder_alive()) {
    return nullptr;
  }
  return directory;
}

void begin(bool forked) {
  auto& header = *reinterpret_cast<wire::RecordingHeader*>(base);
  header.version = wire::kRecordingVersion;
  header.pid = os::process_id();
  header.parent_pid = os::parent_process_id();
  header.forked = forked ? 1 : 0;
  header.image_mark = os::image_mark();
  header.start_realtime_ns = os::realtime_ns();
  header.start_ns = os::monotonic_ns();
  header.start_stamp = read_stamp();
  header.ring_capacity = recording.ring_capacity;
  header.lost_events = 0;
  header.stacks_lost = 0;
  header.command_bytes = os::command_line(header.command, sizeof header.command);
  recording.header = &header;
  store_release(header.magic, wire::kRecordingMagic);
  fetch_add_relaxed(recording.recorder->images, 1u);
  wake_recorder();
}

// What is used of the tables, page by page.
bool copy_tables(char* to) {
  const auto& header = *reinterpret_cast<const wire::RecordingHeader*>(base);
  const struct {
    size_t begin;
    size_t bytes;
  } used[] = {
      {0, sizeof header},
      {wire::kRingsOffsetBytes, header.rings_used * sizeof(wire::Ring)},
      {wire::kModulesOffsetBytes, header.modules_used * sizeof(wire::Module)},
      {wire::kCodesOffsetBytes, header.codes_used * sizeof(wire::Code)},
      {wire::kNodesOffsetBytes, header.nodes_used * sizeof(wire::Node)},
      {wire::kTextsOffsetBytes, header.texts_used_bytes},
  };
  for (const auto& part : used) {
    for (size_t at = part.begin; at < part.begin + part.bytes; at += wire::kPageBytes) {
      if (!os::back_page(to + at)) return false;
      memcpy(to + at, base + at, wire::kPageBytes);
    }
  }
  reinterpret_cast<wire::RecordingHeader*>(to)->magic = 0;
  return true;
}

}  // namespace

void set_directory(const char* directory) { strncpy(told_directory, directory, sizeof told_directory - 1); }

bool open_recording(bool forked) {
  if (os::is_restricted) return false;
  const char* directory = find_recorder();
  if (directory == nullptr) return false;
  char path[os::kPathBytes];
  const int file = os::create_numbered_file(directory, wire::kRecordingSuffix, path);
  if (file < 0) return false;
  const bool is_mapped = map_recording(file);
  os::close_file(file);
  if (!is_mapped) return false;
  memset(base, 0, sizeof(wire::RecordingHeader));
  recording.ring_capacity = static_cast<uint32_t>((mapped_bytes - wire::kDataOffsetBytes) / wire::kRingBytesLargest);
  recording.rings = reinterpret_cast<wire::Ring*>(base + wire::kRingsOffsetBytes);
  begin(forked);
  return true;
}

bool reopen_recording() {
  if (os::is_restricted || base == nullptr) return false;
  if (recording.recorder != nullptr) os::unmap(recording.recorder, sizeof *recording.recorder);
  recording.recorder = nullptr;
  const char* directory = find_recorder();
  if (directory == nullptr) return false;
  char path[os::kPathBytes];
  const int file = os::create_numbered_file(directory, wire::kRecordingSuffix, path);
  if (file < 0) return false;
  bool is_whole = false;
  if (os::resize(file, mapped_bytes)) {
    auto* tables = static_cast<char*>(os::map_file(file, wire::kDataOffsetBytes));
    is_whole = tables != nullptr && copy_tables(tables);
    if (tables != nullptr) os::unmap(tables, wire::kDataOffsetBytes);
  }
  is_whole =
      is_whole && syscall(SYS_mmap, base, mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) != -1;
  os::close_file(file);
  if (!is_whole) return false;
  os::make_inaccessible(base + wire::kDataOffsetBytes, mapped_bytes - wire::kDataOffsetBytes);
  system_call(SYS_madvise, reinterpret_cast<long>(base), static_cast<long>(mapped_bytes), MADV_DONTDUMP);
  recording.header = reinterpret_cast<wire::RecordingHeader*>(base);
  for (uint32_t index = 0; index < recording.header->rings_used; ++index) {
    wire::Ring& ring = recording.rings[index];
    ring.lost_events = ring.waited_ns = 0;
    ring.read_words = ring.begun_words = ring.written_words;
    char* data = base + wire::kDataOffsetBytes + index * wire::kRingBytesLargest;
    if (!os::make_accessible(data, wire::kRingBytesLargest) ||
        !back_ring(reinterpret_cast<uint64_t*>(data), 0, ring.capacity_words * sizeof(uint64_t))) {
      return false;
    }
  }
  begin(false);
  return true;
}

void forget_recording() {
  if (base != nullptr) os::unmap(base, mapped_bytes);
  base = nullptr;
  recording.header = nullptr;
  recording.rings = nullptr;
}

uint64_t* reveal_ring(uint32_t index) {
  auto* ring = reinterpret_cast<char*>(&recording.rings[index]);
  if (!os::back_page(reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(ring) & ~(wire::kPageBytes - 1)) +
                     wire::kPageBytes - 16)) {
    return nullptr;
  }
  char* data = base + wire::kDataOffsetBytes + index * wire::kRingBytesLargest;
  if (!os::make_accessible(data, wire::kRingBytesLargest)) return nullptr;
  auto* words = reinterpret_cast<uint64_t*>(data);
  return back_ring(words, 0, wire::kRingBytesFirst) ? words : nullptr;
}

bool back_ring(uint64_t* words, size_t from_bytes, size_t to_bytes) {
  for (size_t at = from_bytes; at < to_bytes; at += wire::kPageBytes) {
    if (!os::back_page(reinterpret_cast<char*>(words) + at)) return false;
  }
  return true;
}

bool is_recorder_alive() {
  const uint32_t seen = load_relaxed(recording.recorder->owner_lock[0]);
  return (seen & kOwnerDied) == 0 && (seen & kOwnerBits) != 0;
}

void wake_recorder() {
  wire::RecorderPage& recorder = *recording.recorder;
  __atomic_fetch_add(&recorder.wake_sequence, 1u, __ATOMIC_SEQ_CST);
  if (load_sequential(recorder.is_sleeping) == 0) return;
  system_call(SYS_futex, reinterpret_cast<long>(&recorder.wake_sequence), FUTEX_WAKE, INT32_MAX);
}

}  // namespace hs::record
