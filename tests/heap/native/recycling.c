// Recycling on demand, when there is nothing, something, and everything to give back; and what is mapped in the gaps.
#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static long resident_kib(void) {
  static char text[8192];
  FILE* file = fopen("/proc/self/status", "r");
  setvbuf(file, NULL, _IONBF, 0);
  const size_t length = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[length] = 0;
  return strtol(strstr(text, "VmRSS:") + 6, NULL, 10);
}

int main(void) {
  int (*recycle)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "hs_recycle");
  if (!recycle) return 3;
  malloc_trim(0);
  recycle();  // nothing is free
  enum { count = 4000, bytes = 20000 };
  static char* blocks[count];
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < count; i++) {
      blocks[i] = malloc(bytes);
      memset(blocks[i], i, bytes);
    }
    const long full = resident_kib();
    for (int i = 0; i < count; i += 2) free(blocks[i]);
    const int some = recycle();
    const long half = resident_kib();
    // The kernel may map what the program asks for next wherever there is room.
    char* map = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(map, 0x5A, 4 << 20);
    for (int i = 1; i < count; i += 2) {
      if (blocks[i][0] != (char)i || blocks[i][bytes - 1] != (char)i) return 4;
      free(blocks[i]);
    }
    for (int i = 0; i < 4 << 20; i += 4096)
      if (map[i] != 0x5A) return 5;
    munmap(map, 4 << 20);
    const int rest = malloc_trim(0);
    const long empty = resident_kib();
    if (round == 2) printf("some %d half %d rest %d empty %d\n", some, half < full - 20000, rest, empty < half - 20000);
  }
  return recycle() == 2;
}
