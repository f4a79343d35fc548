// Holds what it is told to, says so, and waits for a line: holds BLOCKS BYTES THREADS
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t blocks, bytes;

static void* fill(void* unused) {
  (void)unused;
  void** kept = malloc(blocks * sizeof *kept);
  for (size_t i = 0; i < blocks; i++) {
    kept[i] = malloc(bytes);
    memset(kept[i], 1, bytes);
    free(malloc(bytes));
  }
  return kept;
}

int main(int count, char** words) {
  blocks = strtoul(words[1], NULL, 10);
  bytes = strtoul(words[2], NULL, 10);
  const int threads = atoi(words[3]);
  pthread_t started[16];
  for (int i = 0; i < threads; i++) pthread_create(&started[i], NULL, fill, NULL);
  for (int i = 0; i < threads; i++) pthread_join(started[i], NULL);
  if (threads == 0) fill(NULL);
  if (count > 4 && strcmp(words[4], "fork") == 0) {
    const pid_t child = fork();
    if (child == 0) fill(NULL);
    if (child != 0) waitpid(child, NULL, 0);
  }
  static const char ready[] = "ready\n";
  if (write(1, ready, sizeof ready - 1) < 0) return 1;
  char line[8];
  for (long got; (got = read(0, line, sizeof line)) > 0;) {
    void* more = malloc(64 << 20);
    const char* answer = more ? "had\n" : "refused\n";
    if (write(1, answer, strlen(answer)) < 0) return 1;
    free(more);
  }
  return 0;
}
