// workloads NAME [SCALE]: runs one workload and prints one JSON object with what it took.
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "workload.h"

extern const workload small_workloads[], metamalloc_workloads[], server_workloads[], large_workloads[];
static const workload* const suites[] = {small_workloads, metamalloc_workloads, server_workloads, large_workloads};
enum { suite_count = sizeof suites / sizeof *suites };

void* must(void* block) {
  if (!block) {
    static const char text[] = "workloads: out of memory\n";
    fwrite(text, 1, sizeof text - 1, stderr);
    _Exit(3);
  }
  return block;
}

typedef struct {
  void (*body)(unsigned);
  unsigned index;
} thread_start;

static void* start_thread(void* argument) {
  const thread_start* start = argument;
  start->body(start->index);
  return NULL;
}

void run_threads(unsigned count, void (*body)(unsigned index)) {
  pthread_t threads[64];
  thread_start starts[64];
  for (unsigned i = 0; i < count; i++) {
    starts[i] = (thread_start){body, i};
    if (pthread_create(&threads[i], NULL, start_thread, &starts[i]) != 0) must(NULL);
  }
  for (unsigned i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

static uint64_t now_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// The value in KiB of one line of /proc/self/status, read without a buffered stream: those allocate.
static long status_kib(const char* key) {
  static char text[8192];
  FILE* file = fopen("/proc/self/status", "r");
  if (!file) return -1;
  setvbuf(file, NULL, _IONBF, 0);
  const size_t length = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[length] = 0;
  const char* line = strstr(text, key);
  return line ? strtol(line + strlen(key) + 1, NULL, 10) : -1;
}

static int measure(const workload* w, unsigned scale) {
  if (w->prepare) w->prepare(scale);
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  const uint64_t wall = now_ns(CLOCK_MONOTONIC);
  const uint64_t cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
  w->run(scale);
  const uint64_t cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  const uint64_t wall_ns = now_ns(CLOCK_MONOTONIC) - wall;
  getrusage(RUSAGE_SELF, &after);
  printf(
      "{\"workload\": \"%s\", \"time_ns\": %llu, \"cpu_ns\": %llu, \"page_faults\": %ld, "
      "\"resident_peak_bytes\": %lld, \"resident_after_bytes\": %lld, \"virtual_after_bytes\": %lld}\n",
      w->name, (unsigned long long)wall_ns, (unsigned long long)cpu_ns, after.ru_minflt - before.ru_minflt,
      (long long)status_kib("VmHWM:") * 1024, (long long)status_kib("VmRSS:") * 1024,
      (long long)status_kib("VmSize:") * 1024);
  return 0;
}

int main(int argc, char** argv) {
  if (argc >= 2 && strcmp(argv[1], "--list") == 0) {
    for (unsigned suite = 0; suite < suite_count; suite++)
      for (const workload* w = suites[suite]; w->name; w++) printf("%s\t%s\n", w->name, w->promise);
    return 0;
  }
  char* end = NULL;
  const long scale = argc >= 3 ? strtol(argv[2], &end, 10) : 1;
  if (argc < 2 || argc > 3 || (end && *end) || scale < 1 || scale > 1000) {
    fprintf(stderr, "usage: workloads NAME [SCALE 1..1000] | --list\n");
    return 2;
  }
  for (unsigned suite = 0; suite < suite_count; suite++)
    for (const workload* w = suites[suite]; w->name; w++)
      if (strcmp(w->name, argv[1]) == 0) return measure(w, (unsigned)scale);
  fprintf(stderr, "workloads: no workload is called '%s'; see --list\n", argv[1]);
  return 2;
}
