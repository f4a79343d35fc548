#include "probe/region.h"

#include <stdlib.h>
#include <string.h>

#include <initializer_list>

#include "base/atomic.h"
#include "os/numbered_file.h"
#include "os/process.h"
#include "os/shared_memory.h"

namespace hs::probe {

using os::append;
using os::kPathBytes;

Region region;
bool is_small_region = false;
BoundedLock slots_lock;

namespace {

// The mapping: all of it is address space from the first moment, but only the revealed beginning is accessible, so that a
// process that locks its memory locks little of ours.
constexpr size_t kRevealBytes = 256 * 1024;
constexpr size_t kBytesUnderAddressLimit = 4 * 1024 * 1024;
char* base = nullptr;
size_t mapped_bytes = 0;
HS_BULK char last_resort[kRevealBytes];
size_t revealed_bytes = 0;

// Kept open: without a launcher, others find region and control block in this process's descriptors.
os::MemoryFile memory_file = {};
os::MemoryFile control_memory_file = {};

// What is in force in a parent holds in its children as well.
wire::LaunchBlock inherited_wishes;

// Slots given back, to be used again before new ones.
HS_BULK uint16_t free_slots[wire::kSlotCapacity];
uint32_t free_slot_count = 0;

const char* run_directory() {
  const char* directory = secure_getenv(wire::kRunVariable);
  return directory != nullptr && directory[0] == '/' && strlen(directory) < kPathBytes - 64 ? directory : nullptr;
}

wire::LaunchBlock launch_wishes(const char* directory) {
  wire::LaunchBlock block = {};
  if (directory != nullptr) {
    char path[kPathBytes];
    const char* end = path + sizeof path - 1;
    append(append(append(path, end, directory), end, "/"), end, wire::kLaunchFile);
    const long count = os::read_file(path, &block, sizeof block);
    if (count == sizeof block && block.magic == wire::kLaunchMagic && block.version == wire::kVersion) return block;
  }
  block = {};
  block.python_objects = 1;
  return block;
}

int create_control_file(const char* region_path) {
  if (region_path == nullptr) return os::create_memory_file(wire::kControlMemfd, control_memory_file);
  char path[kPathBytes];
  const char* end = path + sizeof path - 1;
  char* at = append(path, end, region_path);
  append(at - (sizeof wire::kRegionSuffix - 1), end, wire::kControlSuffix);
  return os::create_file(path);
}

// `region_path` is null for a region without a file.
const wire::ControlBlock* open_control(const char* region_path, const wire::LaunchBlock& wishes) {
  HS_BULK static wire::ControlBlock unreachable;
  const int file = create_control_file(region_path);
  void* page = nullptr;
  if (file >= 0 && os::resize(file, sizeof(wire::ControlBlock))) {
    page = os::map_file(file, sizeof(wire::ControlBlock));
    if (page != nullptr && !os::back_page(page)) {
      os::unmap(page, sizeof(wire::ControlBlock));
      page = nullptr;
    }
  }
  if (file >= 0 && (region_path != nullptr || page == nullptr)) {
    os::close_file(file);
    control_memory_file = {};
  }
  auto* control = page != nullptr ? static_cast<wire::ControlBlock*>(page) : &unreachable;
  *control = {};
  control->version = wire::kVersion;
  control->limit_bytes = wishes.limit_bytes;
  control->warn_at_bytes = wishes.warn_at_bytes;
  store_release(control->magic, wire::kControlMagic);
  return control;
}

bool reveal(size_t bytes) {
  if (bytes > mapped_bytes) return false;
  if (bytes <= revealed_bytes) return true;
  const size_t more = (bytes - revealed_bytes + kRevealBytes - 1) / kRevealBytes * kRevealBytes;
  if (!os::make_accessible(base + revealed_bytes, more)) return false;
  revealed_bytes += more;
  return true;
}

bool back_first_pages() {
  for (uint32_t page = 0; page < wire::kHeaderPages + wire::kSharedSlots; ++page) {
    if (!os::back_page(base + page * wire::kPageBytes)) return false;
  }
  return true;
}

bool map_region(int file) {
  mapped_bytes = os::address_space_is_limited() || is_small_region ? kBytesUnderAddressLimit : wire::kRegionBytes;
  const size_t largest_bytes = os::largest_file_bytes() / kRevealBytes * kRevealBytes;
  if (file >= 0 && mapped_bytes > largest_bytes) mapped_bytes = largest_bytes;
  if (mapped_bytes < kRevealBytes) return false;
  if (file >= 0 && !os::resize(file, mapped_bytes)) return false;
  base = static_cast<char*>(file >= 0 ? os::map_file(file, mapped_bytes) : os::map_private(mapped_bytes));
  if (base == nullptr) return false;
  revealed_bytes = kRevealBytes;
  os::make_inaccessible(base + kRevealBytes, mapped_bytes - kRevealBytes);
  if (back_first_pages()) return true;
  os::unmap(base, mapped_bytes);
  base = nullptr;
  return false;
}

bool share_through_file(const char* directory, char (&path)[kPathBytes]) {
  const int file = os::create_numbered_file(directory, wire::kRegionSuffix, path);
  if (file < 0) return false;
  const bool mapped = map_region(file);
  os::close_file(file);
  return mapped;
}

bool share_through_memory_file() {
  const int file = os::create_memory_file(wire::kRegionMemfd, memory_file);
  if (file < 0) return false;
  if (map_region(file)) {
    os::seal(file);
    return true;
  }
  os::close_file(file);
  memory_file = {};
  return false;
}

// Memory of our own, of which nobody outside hears.
void use_last_resort() {
  base = last_resort;
  mapped_bytes = revealed_bytes = sizeof last_resort;
}

void begin_region(bool forked) {
  memset(base, 0, (wire::kHeaderPages + wire::kSharedSlots) * wire::kPageBytes);
  region.events = reinterpret_cast<wire::Event*>(base + wire::kPageBytes);
  region.slots = reinterpret_cast<wire::Slot*>(base + wire::kHeaderPages * wire::kPageBytes);
  auto* header = reinterpret_cast<wire::RegionHeader*>(base);
  header->version = wire::kVersion;
  header->slot_bytes = sizeof(wire::Slot);
  header->slot_capacity = wire::kSlotCapacity;
  header->slots_used = wire::kSharedSlots;
  header->forked = forked ? 1 : 0;
  header->limit_bytes = region.control->limit_bytes;
  header->warn_at_bytes = region.control->warn_at_bytes;
  free_slot_count = 0;
  region.header = header;
  constexpr wire::SlotKind kShared[wire::kSharedSlots] = {wire::SlotKind::kEndedNative, wire::SlotKind::kEndedPython,
                                                          wire::SlotKind::kInheritedNative,
                                                          wire::SlotKind::kInheritedPython};
  for (uint32_t index = 0; index < wire::kSharedSlots; ++index) {
    region.slots[index].kind = static_cast<uint32_t>(kShared[index]);
    region.slots[index].state = static_cast<uint32_t>(wire::SlotState::kAlive);
  }
}

// For a forked child that may make no system call but its own; the limit holds there as well.
void open_unseen_region() {
  use_last_resort();
  begin_region(true);
}

}  // namespace

void open_region(bool forked) {
  if (os::is_restricted) return open_unseen_region();
  const char* directory = run_directory();
  char path[kPathBytes];
  wire::LaunchBlock wishes = launch_wishes(directory);
  if (forked) {
    wishes.limit_bytes = inherited_wishes.limit_bytes;
    wishes.warn_at_bytes = inherited_wishes.warn_at_bytes;
  }
  const bool in_file = directory != nullptr && wishes.memory_files == 0 && share_through_file(directory, path);
  if (!in_file && !share_through_memory_file() && !map_region(os::kNoFile)) use_last_resort();
  region.control = open_control(in_file ? path : nullptr, wishes);
  region.python_objects_wanted = wishes.python_objects != 0;
  begin_region(forked);
  wire::RegionHeader& header = *region.header;
  header.pid = os::process_id();
  header.parent_pid = os::parent_process_id();
  // Who finds it among this process's descriptors knows where its ids hold; asking is a walk through /proc.
  header.pid_namespace = in_file ? os::pid_namespace() : 0;
  header.start_realtime_ns = os::realtime_ns();
  header.start_ns = os::monotonic_ns();
  header.image_mark = os::image_mark();
  header.command_bytes = os::command_line(header.command, sizeof header.command);
  store_release(header.magic, wire::kRegionMagic);
}

void forget_region() {
  inherited_wishes.limit_bytes = region.control->limit_bytes;
  inherited_wishes.warn_at_bytes = region.control->warn_at_bytes;
  if (base != last_resort) os::unmap(base, mapped_bytes);
  // The child's descriptors are copies that would show it the parent's region; but the program may have closed them,
  // and opened something of its own under their numbers.
  for (os::MemoryFile* file : {&memory_file, &control_memory_file}) {
    if (!os::is_restricted && os::is_still(*file)) os::close_file(file->number);
    *file = {};
  }
  region.header = nullptr;
}

wire::Slot* take_slot(wire::SlotKind kind, uint32_t& index) {
  wire::RegionHeader& header = *region.header;
  const bool reused = free_slot_count > 0;
  if (reused) {
    index = free_slots[--free_slot_count];
  } else {
    index = header.slots_used;
    if (index >= wire::kSlotCapacity) return nullptr;
    if (!reveal((wire::kHeaderPages + index + 1) * wire::kPageBytes)) return nullptr;
    if (!os::back_page(&region.slots[index])) return nullptr;
    store_release(header.slots_used, index + 1);
  }
  wire::Slot* slot = &region.slots[index];
  const uint32_t generation = reused ? slot->generation + 1 : 0;
  memset(slot, 0, sizeof *slot);
  slot->generation = generation;
  slot->kind = static_cast<uint32_t>(kind);
  return slot;
}

void give_back_slot(uint32_t index) {
  store_release(region.slots[index].state, static_cast<uint32_t>(wire::SlotState::kFree));
  free_slots[free_slot_count++] = static_cast<uint16_t>(index);
}

void write_event(wire::EventKind kind, int64_t live_bytes, int64_t threshold_bytes, uint64_t requested_bytes) {
  const uint64_t number = fetch_add_relaxed(region.header->events, 1u);
  wire::Event& event = region.events[number % wire::kEventCapacity];
  store_release(event.sequence, 0u);
  event.time_ns = os::monotonic_ns();
  event.kind = static_cast<uint32_t>(kind);
  event.tid = os::thread_id();
  event.live_bytes = live_bytes;
  event.threshold_bytes = threshold_bytes;
  event.requested_bytes = requested_bytes;
  store_release(event.sequence, number + 1);
}

}  // namespace hs::probe
