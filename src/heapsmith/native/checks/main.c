// checks NAME | --list: runs one check. Exit code 0: held; 1: broken (said on standard output); 77: not
// possible here.
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"

extern const check size_checks[], content_checks[], error_checks[], thread_checks[], process_checks[], memory_checks[],
    hardening_checks[], operator_checks[], mistake_checks[];
static const check* const groups[] = {size_checks,   content_checks,   error_checks,    thread_checks, process_checks,
                                      memory_checks, hardening_checks, operator_checks, mistake_checks};
enum { group_count = sizeof groups / sizeof *groups, exit_broken = 1, exit_unsupported = 77 };

static void say(const char* format, va_list arguments) {
  char text[512];
  const int length = vsnprintf(text, sizeof text, format, arguments);
  const size_t bytes = length < (int)sizeof text ? (size_t)length : sizeof text - 1;
  if (write(STDOUT_FILENO, text, bytes) < 0) _exit(exit_broken);
}
void broken(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say(format, arguments);
  va_end(arguments);
  _exit(exit_broken);
}
void unsupported(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say(format, arguments);
  va_end(arguments);
  _exit(exit_unsupported);
}

void write_pattern(void* block, size_t bytes, unsigned number) {
  unsigned char* at = block;
  for (size_t i = 0; i < bytes; i++) at[i] = (unsigned char)(number * 31 + i * 7 + (i >> 8));
}
bool has_pattern(const void* block, size_t bytes, unsigned number) {
  const unsigned char* at = block;
  for (size_t i = 0; i < bytes; i++)
    if (at[i] != (unsigned char)(number * 31 + i * 7 + (i >> 8))) return false;
  return true;
}

void* opaque(void* pointer) {
  __asm__ volatile("" : "+r"(pointer) : : "memory");
  return pointer;
}

typedef struct {
  void (*body)(unsigned);
  unsigned index;
} start;
static void* start_thread(void* argument) {
  const start* of = argument;
  of->body(of->index);
  return NULL;
}
void run_threads(unsigned count, void (*body)(unsigned index)) {
  static pthread_t threads[256];
  static start starts[256];
  for (unsigned i = 0; i < count; i++) {
    starts[i] = (start){body, i};
    HOLDS(pthread_create(&threads[i], NULL, start_thread, &starts[i]) == 0, "thread %u of %u cannot be made", i, count);
  }
  for (unsigned i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

int main(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (unsigned group = 0; group < group_count; group++)
      for (const check* c = groups[group]; c->name; c++)
        printf("%s\t%s\t%s\n", c->name, c->must_be_caught ? "hardening" : "contract", c->promise);
    return 0;
  }
  if (argc != 2) {
    fprintf(stderr, "usage: checks NAME | --list\n");
    return 2;
  }
  const struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  for (unsigned group = 0; group < group_count; group++)
    for (const check* c = groups[group]; c->name; c++)
      if (strcmp(c->name, argv[1]) == 0) {
        c->run();
        if (c->must_be_caught) broken("the program went on as if nothing had happened");
        return 0;
      }
  fprintf(stderr, "checks: no check is called '%s'; see --list\n", argv[1]);
  return 2;
}
