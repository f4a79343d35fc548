// Nothing special: it says its first argument and leaves with it; with a second it stays until it is killed.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int count, char** arguments) {
  const int code = count > 1 ? atoi(arguments[1]) : 0;
  free(malloc(1000));
  printf("plain %d\n", code);
  fflush(stdout);
  if (count > 2) sleep(20);
  return code;
}
