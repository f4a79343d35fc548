// Anonymous memory mapped, cut, moved and given back in every way; tells how much must be left.
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tally.h"

static char* map(size_t bytes, int flags, void* wish) {
  void* mapping = mmap(wish, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  if (mapping == MAP_FAILED) _exit(9);
  return mapping;
}

int main(int count, char** arguments) {
  enum { kPage = 4096 };
  const char* what = count > 1 ? arguments[1] : "";
  long left = 0;
  if (strcmp(what, "whole") == 0) {
    char* one = map(100 * kPage, 0, NULL);
    map(50 * kPage, 0, NULL);
    munmap(one, 100 * kPage);
    left = 50 * kPage;
  } else if (strcmp(what, "odd_sizes") == 0) {
    char* one = map(5000, 0, NULL);  // two pages
    map(1, 0, NULL);
    munmap(one, 100);  // the first of them
    left = 2 * kPage;
  } else if (strcmp(what, "holes") == 0) {
    char* one = map(100 * kPage, 0, NULL);
    for (int page = 0; page < 100; page += 2) munmap(one + page * kPage, kPage);
    left = 50 * kPage;
  } else if (strcmp(what, "across") == 0) {
    char* all = mmap(NULL, 30 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);  // a reservation
    map(10 * kPage, MAP_FIXED, all);
    map(10 * kPage, MAP_FIXED, all + 20 * kPage);
    munmap(all + 5 * kPage, 20 * kPage);
    left = 10 * kPage;
  } else if (strcmp(what, "over") == 0) {
    char* one = map(10 * kPage, 0, NULL);
    map(4 * kPage, MAP_FIXED, one + 2 * kPage);
    if (mmap(one, 3 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != one) return 8;
    left = 7 * kPage;
  } else if (strcmp(what, "bad_calls") == 0) {
    char* one = map(10 * kPage, 0, NULL);
    errno = 0;
    if (munmap(one + 1, kPage) != -1 || errno != EINVAL) return 7;
    if (munmap(one, 0) != -1 || errno != EINVAL) return 6;
    if (mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED || errno != EINVAL) return 5;
    if (mremap(one, 10 * kPage, 1ul << 47, MREMAP_MAYMOVE) != MAP_FAILED) return 4;
    left = 10 * kPage;
  } else if (strcmp(what, "remaps") == 0) {
    char* one = map(10 * kPage, 0, NULL);
    one = mremap(one, 10 * kPage, 1000 * kPage, MREMAP_MAYMOVE);
    one = mremap(one, 1000 * kPage, 20 * kPage, MREMAP_MAYMOVE);
    char* other = map(50 * kPage, 0, NULL);
    one = mremap(one, 20 * kPage, 30 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, other);
    if (one != other) return 3;
    left = 50 * kPage;
  } else if (strcmp(what, "files") == 0) {
    const int file = memfd_create("own", 0);
    if (ftruncate(file, 10 * kPage) != 0) return 2;
    char* one = map(10 * kPage, 0, NULL);
    if (mmap(one, 4 * kPage, PROT_READ, MAP_SHARED | MAP_FIXED, file, 0) != one) return 1;
    left = 6 * kPage;
  } else if (strcmp(what, "malloc") == 0) {
    (void)!malloc(100 * 1024 * 1024);
  }
  say("%ld\n", left);
  return 0;
}
