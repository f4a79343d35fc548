// workloads NAME [SCALE]: runs one workload and prints one JSON object with what it took.
// workloads --run LIBRARY COMMAND...: the same of a whole program with LIBRARY preloaded ("" is none). This process is
// small, because what forks hands its own size on to what is measured.
// workloads --start LIBRARY COUNT: a process that does nothing, COUNT times: medians.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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

static pid_t launch(const char* preloaded, int output, char** command) {
  const pid_t child = vfork();
  if (child == 0) {
    if (output >= 0) dup2(output, STDOUT_FILENO);
    if (*preloaded) setenv("LD_PRELOAD", preloaded, 1);
    execvp(command[0], command);
    _exit(127);
  }
  return child;
}

// Its standard output goes where ours goes for errors, so that ours holds one JSON object.
static int run_program(const char* preloaded, char** command) {
  const uint64_t begin = now_ns(CLOCK_MONOTONIC);
  const pid_t child = launch(preloaded, STDERR_FILENO, command);
  int status = 0;
  struct rusage used;
  if (child < 0 || wait4(child, &status, 0, &used) != child) return 3;
  const uint64_t wall_ns = now_ns(CLOCK_MONOTONIC) - begin;
  const long long cpu_us =
      (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000ll + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
  printf("{\"time_ns\": %llu, \"cpu_ns\": %lld, \"page_faults\": %ld, \"resident_peak_bytes\": %lld}\n",
         (unsigned long long)wall_ns, cpu_us * 1000, used.ru_minflt, (long long)used.ru_maxrss * 1024);
  fflush(stdout);
  if (WIFSIGNALED(status)) {
    signal(WTERMSIG(status), SIG_DFL);
    raise(WTERMSIG(status));
  }
  return WEXITSTATUS(status);
}

static int by_value(const void* a, const void* b) {
  const uint64_t left = *(const uint64_t*)a, right = *(const uint64_t*)b;
  return left < right ? -1 : left > right;
}
enum { most_starts = 1000 };
static int measure_starts(const char* preloaded, long count) {
  static uint64_t times[most_starts], residents[most_starts];
  char self[4096];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  if (length < 0) return 3;
  self[length] = 0;
  char* command[] = {self, "--nothing", NULL};
  for (long i = 0; i < count; i++) {
    int ends[2];
    if (pipe(ends) != 0) return 3;
    const uint64_t begin = now_ns(CLOCK_MONOTONIC);
    const pid_t child = launch(preloaded, ends[1], command);
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return 3;
    times[i] = now_ns(CLOCK_MONOTONIC) - begin;
    close(ends[1]);
    char text[32] = "";
    const ssize_t got = read(ends[0], text, sizeof text - 1);
    close(ends[0]);
    if (status != 0 || got <= 0) return WIFSIGNALED(status) ? (raise(WTERMSIG(status)), 3) : 3;
    residents[i] = strtoull(text, NULL, 10);
  }
  qsort(times, (size_t)count, sizeof *times, by_value);
  qsort(residents, (size_t)count, sizeof *residents, by_value);
  printf("{\"time_ns\": %llu, \"resident_peak_bytes\": %llu, \"page_faults\": 0}\n",
         (unsigned long long)times[count / 2], (unsigned long long)residents[count / 2]);
  return 0;
}

int main(int argc, char** argv) {
  if (argc >= 2 && strcmp(argv[1], "--nothing") == 0) {
    free(must(malloc(1)));
    dprintf(STDOUT_FILENO, "%lld", (long long)status_kib("VmRSS:") * 1024);
    return 0;
  }
  if (argc >= 4 && strcmp(argv[1], "--run") == 0) return run_program(argv[2], argv + 3);
  if (argc == 4 && strcmp(argv[1], "--start") == 0) {
    const long count = strtol(argv[3], NULL, 10);
    return count >= 1 && count <= most_starts ? measure_starts(argv[2], count) : 2;
  }
  if (argc >= 2 && strcmp(argv[1], "--list") == 0) {
    for (unsigned suite = 0; suite < suite_count; suite++)
      for (const workload* w = suites[suite]; w->name; w++) printf("%s\t%s\n", w->name, w->promise);
    return 0;
  }
  char* end = NULL;
  const long scale = argc >= 3 ? strtol(argv[2], &end, 10) : 1;
  if (argc < 2 || argc > 3 || (end && *end) || scale < 1 || scale > 1000) {
    fprintf(stderr,
            "usage: workloads NAME [SCALE 1..1000] | --run LIBRARY COMMAND... | --start LIBRARY COUNT | --list\n");
    return 2;
  }
  for (unsigned suite = 0; suite < suite_count; suite++)
    for (const workload* w = suites[suite]; w->name; w++)
      if (strcmp(w->name, argv[1]) == 0) return measure(w, (unsigned)scale);
  fprintf(stderr, "workloads: no workload is called '%s'; see --list\n", argv[1]);
  return 2;
}
