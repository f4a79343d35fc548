// Forks so many children; each allocates and frees a known number of blocks and leaves with its number.
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char** words) {
  const int children = count > 1 ? atoi(words[1]) : 10;
  void* volatile inherited = malloc(4321);
  for (int child = 0; child < children; ++child) {
    const pid_t pid = fork();
    if (pid == 0) {
      for (int block = 0; block < 20; ++block) free(malloc(5000 + block));
      free(inherited);
      _exit(child % 100);
    }
    if (pid < 0) return 1;
    if (child % 50 == 49) {
      while (wait(NULL) > 0) {
      }
    }
  }
  while (wait(NULL) > 0) {
  }
  return 0;
}
