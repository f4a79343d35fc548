/* How far a heap reaches: allocates until there is no more, and says after each step how far it came, so that
 * its parent knows also when it is killed.
 *
 *   reach malloc|realloc|blocks BLOCK_BYTES LIMIT_BYTES touch|leave
 *
 * malloc: one block at a time, each larger by BLOCK_BYTES, freed again. realloc: one block that grows by
 * BLOCK_BYTES. blocks: blocks of BLOCK_BYTES, all kept. One line of output: a word of 8 bytes for each step,
 * the bytes reached. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kReached = 0, kRefused = 3, kUsage = 2 };

static void touch(char* from, size_t bytes) {
  enum { kPageBytes = 4096 };
  for (size_t at = 0; at < bytes; at += kPageBytes) from[at] = 1;
  if (bytes != 0) from[bytes - 1] = 1;
}

static void tell(uint64_t bytes) {
  if (write(STDOUT_FILENO, &bytes, sizeof bytes) != sizeof bytes) _exit(kUsage);
}

/* If somebody has to die for memory, it is this process. */
static void volunteer(void) {
  const int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  if (write(file, "1000", 4) != 4) errno = 0;
  close(file);
}

static int grow_by_malloc(size_t step, size_t limit, int touches) {
  for (size_t bytes = step; bytes <= limit; bytes += step) {
    char* volatile block = malloc(bytes);
    if (block == NULL) return kRefused;
    if (touches) touch(block, bytes);
    free(block);
    tell(bytes);
  }
  return kReached;
}

static int grow_by_realloc(size_t step, size_t limit, int touches) {
  char* volatile block = NULL;
  for (size_t bytes = step; bytes <= limit; bytes += step) {
    char* grown = realloc(block, bytes);
    if (grown == NULL) return kRefused;
    block = grown;
    if (touches) touch(block + bytes - step, step);
    tell(bytes);
  }
  return kReached;
}

static int fill_with_blocks(size_t block_bytes, size_t limit, int touches) {
  const size_t tell_every = limit / 256 + 1;
  size_t told = 0;
  size_t bytes = 0;
  for (; bytes + block_bytes <= limit; bytes += block_bytes) {
    char* volatile block = malloc(block_bytes);
    if (block == NULL) break;
    if (touches) touch(block, block_bytes);
    if (bytes + block_bytes - told < tell_every) continue;
    told = bytes + block_bytes;
    tell(told);
  }
  tell(bytes);
  return bytes + block_bytes <= limit ? kRefused : kReached;
}

int main(int count, char** words) {
  if (count != 5) return kUsage;
  const size_t bytes = strtoull(words[2], NULL, 10);
  const size_t limit = strtoull(words[3], NULL, 10);
  const int touches = strcmp(words[4], "touch") == 0;
  if (bytes == 0) return kUsage;
  volunteer();
  if (strcmp(words[1], "malloc") == 0) return grow_by_malloc(bytes, limit, touches);
  if (strcmp(words[1], "realloc") == 0) return grow_by_realloc(bytes, limit, touches);
  if (strcmp(words[1], "blocks") == 0) return fill_with_blocks(bytes, limit, touches);
  return kUsage;
}
