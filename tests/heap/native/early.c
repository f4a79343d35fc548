// A library whose constructor allocates before anybody else's has run.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((constructor(101))) static void begin(void) {
  free(NULL);
  char* zeroed = calloc(10, 100);
  for (int i = 0; i < 1000; i++)
    if (zeroed[i] != 0) abort();
  char* moved = realloc(zeroed, 50000);
  memset(moved, 1, 50000);
  moved = realloc(moved, 10);
  free(moved);
  free(realloc(NULL, 100));
}
