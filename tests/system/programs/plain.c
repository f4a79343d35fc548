// Nothing special: it says its first argument and leaves with it; with a second it stays until it is killed, or tells
// what is preloaded.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char** arguments) {
  const int code = count > 1 ? atoi(arguments[1]) : 0;
  free(malloc(1000));
  printf("plain %d\n", code);
  const int tells = count > 2 && strcmp(arguments[2], "preload") == 0;
  if (tells) printf("%s\n", getenv("LD_PRELOAD") ? getenv("LD_PRELOAD") : "nothing");
  fflush(stdout);
  if (count > 2 && !tells) sleep(20);
  return code;
}
