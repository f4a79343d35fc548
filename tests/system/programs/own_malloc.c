// A program with a malloc of its own, as one that is linked to an allocator statically.
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char space[1 << 26];
static size_t used;
static long own_calls;

void* malloc(size_t bytes) {
  ++own_calls;
  bytes = (bytes + 31) / 16 * 16;
  if (used + bytes > sizeof space) return NULL;
  char* block = space + used;
  memcpy(block, &bytes, sizeof bytes);
  used += bytes;
  return block + 16;
}
void free(void* block) {
  // Someone else's block would be found out here.
  if (block != NULL && ((char*)block < space || (char*)block >= space + sizeof space)) _exit(9);
}
void* calloc(size_t count, size_t bytes) { return malloc(count * bytes); }
void* realloc(void* block, size_t bytes) {
  if (block == NULL) return malloc(bytes);
  if ((char*)block < space || (char*)block >= space + sizeof space) _exit(8);
  void* moved = malloc(bytes);
  size_t old_bytes;
  memcpy(&old_bytes, (char*)block - 16, sizeof old_bytes);
  old_bytes -= 16;
  if (moved) memcpy(moved, block, old_bytes < bytes ? old_bytes : bytes);
  return moved;
}

int main(void) {
  char* text = strdup("a text");
  text = reallocarray(text, 10, 100);
  if (strcmp(text, "a text") != 0) return 3;
  free(text);
  const long before = own_calls;
  free(malloc(100));
  if (own_calls != before + 1) return 4;
  write(1, "fine\n", 5);
  return 0;
}
