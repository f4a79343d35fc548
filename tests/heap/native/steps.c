// Counts the instructions of mallocs and frees by single steps: steps THREADS LIVE_BLOCKS. A number that no clock disturbs.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum { measured = 300 };

static pthread_barrier_t ready;
static void* hold_a_cache(void* unused) {
  (void)unused;
  for (int i = 0; i < 100; i++) free(malloc(64));
  pthread_barrier_wait(&ready);
  for (;;) pause();
}

static void work(int threads, long live_blocks) {
  pthread_barrier_init(&ready, NULL, (unsigned)threads + 1);
  for (int i = 0; i < threads; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, hold_a_cache, NULL) != 0) _exit(3);
  }
  pthread_barrier_wait(&ready);
  for (long i = 0; i < live_blocks; i++)
    if (!malloc(64)) _exit(4);
  static void* blocks[measured];
  for (int i = 0; i < measured; i++) blocks[i] = malloc(64);
  for (int i = 0; i < measured; i++) free(blocks[i]);
  ptrace(PTRACE_TRACEME, 0, NULL, NULL);
  raise(SIGSTOP);
  for (int i = 0; i < measured; i++) blocks[i] = malloc(64);
  for (int i = 0; i < measured; i++) free(blocks[i]);
  raise(SIGSTOP);
  _exit(0);
}

int main(int count, char** words) {
  if (count < 3) return 2;
  const pid_t child = fork();
  if (child == 0) work(atoi(words[1]), atol(words[2]));
  int status;
  if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return 5;
  long steps = 0;
  for (;; steps++) {
    if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0) return 6;
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return 7;
    if (WSTOPSIG(status) == SIGSTOP) break;
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  printf("%ld\n", steps / measured);
  return 0;
}
