// Included before a workload: at its end the program says what it has used itself, whoever else was at work beside it.
#pragma once

#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

double seconds_of(clockid_t clock) {
  timespec now = {};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

struct Usage {
  double start_s = seconds_of(CLOCK_MONOTONIC);
  ~Usage() {
    const char *path = std::getenv("HEAPSMITH_USAGE");
    if (path == nullptr) return;
    const double processor_s = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    const double wall_s = seconds_of(CLOCK_MONOTONIC) - start_s;
    long peak_kib = 0;
    char line[256];
    if (std::FILE *status = std::fopen("/proc/self/status", "r")) {
      while (std::fgets(line, sizeof line, status) != nullptr) {
        if (std::strncmp(line, "VmHWM:", 6) == 0) peak_kib = std::strtol(line + 6, nullptr, 10);
      }
      std::fclose(status);
    }
    if (std::FILE *file = std::fopen(path, "w")) {
      std::fprintf(file, "%.9f %.9f %ld\n", processor_s, wall_s, peak_kib * 1024);
      std::fclose(file);
    }
  }
} usage_at_end;

}  // namespace
