#include "record/recording.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/stamp.h"
#include "os/linux.h"
#include "os/numbered_file.h"
#include "os/process.h"
#include "os/shared_memory.h"
#include "os/system_call.h"
#include "wire/region.h"

namespace hs::record {

Recording recording;

namespace {

// The tables and the first ring.
constexpr size_t kFirstBytes = wire::kDataOffsetBytes + wire::kRingBytesLargest;
// A program that is short of address space gets no recording rather than less room.
constexpr size_t kShareOfAddressSpace = 8;
constexpr uint32_t kOwnerDied = 0x40000000;
constexpr uint32_t kOwnerBits = 0x3fffffff;

char told_directory[os::kPathBytes - 64];
char* base = nullptr;
size_t file_bytes = 0;
// Rings are mapped when they are needed: address space is the program's, and it may limit its own at any time. The first
// lies behind the tables.
char* ring_data[wire::kRingCapacity];

uint32_t pages_of(size_t bytes) { return static_cast<uint32_t>((bytes + wire::kPageBytes - 1) / wire::kPageBytes); }

// In a forked child nothing has been counted yet: it has no header.
void count_own(uint32_t pages) {
  if (recording.header != nullptr) fetch_add_relaxed(recording.header->own_pages, pages);
}

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
  if (kFirstBytes > os::largest_address_space_bytes() / kShareOfAddressSpace) return false;
  const size_t largest_bytes = os::largest_file_bytes() / wire::kRingBytesLargest * wire::kRingBytesLargest;
  file_bytes = wire::kRecordingBytes < largest_bytes ? wire::kRecordingBytes : largest_bytes;
  if (file_bytes < kFirstBytes || !os::resize(file, file_bytes)) return false;
  base = static_cast<char*>(os::map_file(file, kFirstBytes));
  if (base == nullptr) return false;
  ring_data[0] = base + wire::kDataOffsetBytes;
  system_call(SYS_madvise, reinterpret_cast<long>(base), static_cast<long>(kFirstBytes), MADV_DONTDUMP);
  if (os::back_page(base)) return true;
  os::unmap(base, kFirstBytes);
  base = nullptr;
  return false;
}

// The file again, at the place where it was.
bool map_again(int file, char* at, size_t bytes, size_t offset_bytes) {
  if (syscall(SYS_mmap, at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, offset_bytes) == -1)
    return false;
  system_call(SYS_madvise, reinterpret_cast<long>(at), static_cast<long>(bytes), MADV_DONTDUMP);
  return true;
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
  store_relaxed(header.current_stamp, header.start_stamp << wire::kStampShift);
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
  recording.ring_capacity = static_cast<uint32_t>((file_bytes - wire::kDataOffsetBytes) / wire::kRingBytesLargest);
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
  if (os::resize(file, file_bytes)) {
    auto* tables = static_cast<char*>(os::map_file(file, wire::kDataOffsetBytes));
    is_whole = tables != nullptr && copy_tables(tables);
    if (tables != nullptr) os::unmap(tables, wire::kDataOffsetBytes);
  }
  is_whole = is_whole && map_again(file, base, kFirstBytes, 0);
  for (uint32_t index = 1; is_whole && index < wire::kRingCapacity && ring_data[index] != nullptr; ++index) {
    is_whole = map_again(file, ring_data[index], wire::kRingBytesLargest,
                         wire::kDataOffsetBytes + index * wire::kRingBytesLargest);
  }
  os::close_file(file);
  if (!is_whole) return false;
  recording.header = reinterpret_cast<wire::RecordingHeader*>(base);
  for (uint32_t index = 0; index < recording.header->rings_used; ++index) {
    wire::Ring& ring = recording.rings[index];
    ring.lost_events = ring.waited_ns = 0;
    ring.read_words = ring.begun_words = ring.written_words;
    if (!back_ring(reinterpret_cast<uint64_t*>(ring_data[index]), 0, ring.capacity_words * sizeof(uint64_t)))
      return false;
  }
  begin(false);
  return true;
}

void* map_own(size_t bytes) {
  void* address = os::map_private(bytes);
  if (address != nullptr) count_own(pages_of(bytes));
  return address;
}

void unmap_own(void* address, size_t bytes) {
  count_own(-pages_of(bytes));
  os::unmap(address, bytes);
}

void empty_own(void* address, size_t bytes) {
  if (Linux::purge(address, bytes)) count_own(-pages_of(bytes));
}

void forget_recording() {
  if (base != nullptr) os::unmap(base, kFirstBytes);
  base = nullptr;
  for (uint32_t index = 1; index < wire::kRingCapacity && ring_data[index] != nullptr; ++index) {
    os::unmap(ring_data[index], wire::kRingBytesLargest);
    ring_data[index] = nullptr;
  }
  recording.header = nullptr;
  recording.rings = nullptr;
}

uint64_t* reveal_ring(uint32_t index) {
  auto* ring = reinterpret_cast<char*>(&recording.rings[index]);
  if (!os::back_page(reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(ring) & ~(wire::kPageBytes - 1)) +
                     wire::kPageBytes - 16)) {
    return nullptr;
  }
  if (ring_data[index] == nullptr) {
    ring_data[index] =
        static_cast<char*>(os::map_beyond(ring_data[index - 1], wire::kRingBytesLargest, wire::kRingBytesLargest));
    if (ring_data[index] == nullptr) return nullptr;
  }
  auto* words = reinterpret_cast<uint64_t*>(ring_data[index]);
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
