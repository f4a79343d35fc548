// What the recorder's Python calls (heapsmith/run/drain.py): the page of the recorder, and passes over its processes.
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <new>

#include "base/atomic.h"
#include "base/compiler.h"
#include "base/stamp.h"
#include "drain/process.h"

namespace {

using hs::drain::Clock;
using hs::drain::NamedMoment;
using hs::drain::Process;
using hs::drain::ThreadLife;
using hs::drain::Totals;
namespace wire = hs::wire;

uint64_t monotonic_ns() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

constexpr uint64_t kSleepNs = 5'000'000;
// Between two passes of a busy process: long enough that a pass is worth its start.
constexpr uint64_t kPauseNs = 300'000;

struct Recorder {
  wire::RecorderPage* page;
  Clock clock;
  uint64_t tick_ns;
  uint32_t seen_images;
};

void tell_time(Recorder& recorder) {
  Clock& clock = recorder.clock;
  const uint64_t now_ns = monotonic_ns();
  clock.now_stamp = hs::read_stamp();
  const auto stamps = static_cast<double>(clock.now_stamp - clock.first_stamp);
  if (stamps > 0) {
    clock.ticks_per_stamp =
        static_cast<double>(now_ns - clock.first_ns) / stamps / static_cast<double>(recorder.tick_ns);
  }
  hs::store_relaxed(recorder.page->heartbeat_ns, now_ns);
}

void sleep_until_woken(wire::RecorderPage& page, uint64_t longest_ns) {
  const uint32_t seen = hs::load_sequential(page.wake_sequence);
  hs::store_sequential(page.is_sleeping, 1u);
  const timespec timeout = {0, static_cast<long>(longest_ns)};
  if (hs::load_sequential(page.wake_sequence) == seen) {
    syscall(SYS_futex, &page.wake_sequence, FUTEX_WAIT, seen, &timeout, nullptr, 0);
  }
  hs::store_sequential(page.is_sleeping, 0u);
}

}  // namespace

extern "C" {

// Makes the page, held by the calling thread: when that ends, in whatever way, every process learns of it.
HS_EXPORT void* hs_recorder_open(const char* path, uint64_t tick_ns, uint32_t stack_mode, uint64_t sample_every_bytes,
                                 uint32_t on_full, uint32_t python_objects) {
  const int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return nullptr;
  void* mapped = MAP_FAILED;
  if (posix_fallocate(file, 0, sizeof(wire::RecorderPage)) == 0) {
    mapped = mmap(nullptr, sizeof(wire::RecorderPage), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  }
  close(file);
  auto* recorder = static_cast<Recorder*>(calloc(1, sizeof(Recorder)));
  if (mapped == MAP_FAILED || recorder == nullptr) return nullptr;
  auto* page = static_cast<wire::RecorderPage*>(mapped);
  static_assert(sizeof page->owner_lock >= sizeof(pthread_mutex_t));
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  auto* owner = reinterpret_cast<pthread_mutex_t*>(page->owner_lock);
  pthread_mutex_init(owner, &attributes);
  pthread_mutex_lock(owner);
  page->version = wire::kRecordingVersion;
  page->pid = static_cast<uint32_t>(getpid());
  page->stack_mode = stack_mode;
  page->sample_every_bytes = sample_every_bytes;
  page->on_full = on_full;
  page->python_objects = python_objects;
  recorder->page = page;
  recorder->tick_ns = tick_ns;
  recorder->clock.first_ns = monotonic_ns();
  recorder->clock.first_stamp = hs::read_stamp();
  hs::store_release(page->magic, wire::kRecorderMagic);
  return recorder;
}

HS_EXPORT uint64_t hs_recorder_start_ns(const Recorder* recorder) { return recorder->clock.first_ns; }

// Nothing more is recorded by anybody.
HS_EXPORT void hs_recorder_stop(Recorder* recorder) { hs::store_release(recorder->page->is_over, 1u); }

HS_EXPORT void hs_recorder_close(Recorder* recorder) {
  hs_recorder_stop(recorder);
  pthread_mutex_unlock(reinterpret_cast<pthread_mutex_t*>(recorder->page->owner_lock));
  munmap(recorder->page, sizeof *recorder->page);
  free(recorder);
}

// Passes over the processes until the time is over, a batch is full, or a new process image has appeared.
HS_EXPORT void hs_recorder_run(Recorder* recorder, Process** processes, uint32_t count, uint64_t longest_ns) {
  const uint64_t until_ns = monotonic_ns() + longest_ns;
  for (;;) {
    tell_time(*recorder);
    bool is_any_threaded = false;
    for (uint32_t at = 0; at < count; ++at) is_any_threaded |= processes[at]->close_stamp(recorder->clock);
    while (is_any_threaded && hs::read_stamp() - recorder->clock.now_stamp < hs::kStoreDelay) {
    }
    uint64_t records = 0;
    bool is_full = false;
    for (uint32_t at = 0; at < count; ++at) {
      records += processes[at]->pass(recorder->clock, false);
      is_full = is_full || processes[at]->is_full();
    }
    const uint32_t images = hs::load_acquire(recorder->page->images);
    const bool has_new = images != recorder->seen_images;
    recorder->seen_images = images;
    const uint64_t now_ns = monotonic_ns();
    if (is_full || has_new || now_ns >= until_ns) return;
    const uint64_t pause_ns = records == 0 ? kSleepNs : kPauseNs;
    sleep_until_woken(*recorder->page, now_ns + pause_ns < until_ns ? pause_ns : until_ns - now_ns);
  }
}

HS_EXPORT Process* hs_process_open(Recorder* recorder, const char* path) {
  tell_time(*recorder);
  void* memory = calloc(1, sizeof(Process));
  if (memory == nullptr) return nullptr;
  auto* process = new (memory) Process();
  const bool is_sampled = recorder->page->stack_mode == static_cast<uint32_t>(wire::StackMode::kSampled);
  if (process->open(path, recorder->clock, is_sampled ? recorder->page->sample_every_bytes : 0)) return process;
  process->close();
  free(process);
  return nullptr;
}

HS_EXPORT void hs_process_close(Process* process) {
  process->close();
  free(process);
}

// Reads what a process left that has ended; answers how many records that was: 0 when there is nothing more.
HS_EXPORT uint64_t hs_process_finish(Process* process, Recorder* recorder) {
  tell_time(*recorder);
  return process->pass(recorder->clock, true);
}

HS_EXPORT const wire::RecordingHeader* hs_process_header(const Process* process) { return &process->header(); }

// What lies in the process's file at an offset.
HS_EXPORT const void* hs_process_at(const Process* process, uint64_t offset_bytes) { return process->at(offset_bytes); }

HS_EXPORT uint32_t hs_process_number_stacks(Process* process, uint32_t first, const uint32_t* numbers, uint32_t count) {
  return process->number_stacks(first, numbers, count) ? 1 : 0;
}

HS_EXPORT void hs_process_tell(const Process* process, Totals* totals) { process->tell(*totals); }

HS_EXPORT uint32_t hs_process_threads(Process* process, ThreadLife* into, uint32_t capacity) {
  return process->take_threads(into, capacity);
}

HS_EXPORT uint32_t hs_process_marks(Process* process, NamedMoment* into, uint32_t capacity) {
  return process->take_marks(into, capacity);
}

HS_EXPORT uint32_t hs_process_batch_events(Process* process) { return process->batch().count(); }

// The payload of the batch, which then begins anew; null where there is none or no memory for it.
HS_EXPORT const uint8_t* hs_process_take_batch(Process* process, uint64_t* bytes, uint32_t* events, uint32_t* born) {
  *events = process->batch().count();
  *born = process->batch().born();
  size_t payload_bytes = 0;
  const uint8_t* payload = *events == 0 ? nullptr : process->encode(payload_bytes);
  *bytes = payload_bytes;
  process->batch_taken();
  return payload;
}

}  // extern "C"
