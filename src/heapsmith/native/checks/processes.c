// fork, exec, signals, loaded libraries, the end of the program.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static _Atomic bool stop;
static void work_until_stop(unsigned index) {
  uint64_t state = index + 1;
  void* blocks[64] = {0};
  while (!atomic_load(&stop)) {
    const unsigned at = next_random(&state) % 64;
    free(blocks[at]);
    blocks[at] = malloc(1 + next_random(&state) % (index % 2 ? 2000 : 100000));
  }
  for (unsigned i = 0; i < 64; i++) free(blocks[i]);
}
static void use_everything(void) {
  static void* blocks[600];
  for (unsigned i = 0; i < 600; i++) {
    const size_t bytes = i < 500 ? i * 9 : i * 700;
    blocks[i] = malloc(bytes);
    HOLDS(blocks[i], "malloc in the child gave nothing");
    write_pattern(blocks[i], bytes < 64 ? bytes : 64, i);
  }
  for (unsigned i = 0; i < 600; i++) {
    const size_t bytes = i < 500 ? i * 9 : i * 700;
    HOLDS(has_pattern(blocks[i], bytes < 64 ? bytes : 64, i), "a block of the child changed");
    free(blocks[i]);
  }
}
static void await(pid_t child) {
  int status;
  HOLDS(waitpid(child, &status, 0) == child, "the child is gone");
  HOLDS(!WIFSIGNALED(status) || WTERMSIG(status) != SIGALRM, "the child hangs in malloc after fork");
  HOLDS(status == 0, "the child ended with status %#x", status);
}
static void fork_under_load(unsigned index) {
  if (index < 3) return work_until_stop(index);
  for (unsigned i = 0; i < 60; i++) {
    const pid_t child = fork();
    HOLDS(child >= 0, "fork failed");
    if (child == 0) {
      alarm(10);
      use_everything();
      _exit(0);
    }
    await(child);
    use_everything();
  }
  atomic_store(&stop, true);
}
static void fork_while_threads_allocate(void) { run_threads(4, fork_under_load); }

static void fork_and_thread(unsigned index) {
  (void)index;
  use_everything();
}
static void threads_in_the_child(void) {
  free(malloc(100));
  for (unsigned i = 0; i < 20; i++) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(10);
      run_threads(1, fork_and_thread);
      const pid_t grandchild = fork();
      if (grandchild == 0) {
        use_everything();
        _exit(0);
      }
      await(grandchild);
      _exit(0);
    }
    await(child);
  }
}

static void vfork_and_exec(void) {
  for (unsigned i = 0; i < 20; i++) {
    void* block = malloc(1000);
    const pid_t child = vfork();
    if (child == 0) {
      execl("/bin/true", "true", (char*)NULL);
      _exit(errno == ENOENT ? 0 : 1);
    }
    await(child);
    free(block);
  }
}

static void child_frees_parents(void) {
  static void* blocks[1000];
  for (unsigned i = 0; i < 1000; i++) write_pattern(blocks[i] = malloc(100 + i), 100, i);
  const pid_t child = fork();
  if (child == 0) {
    alarm(10);
    for (unsigned i = 0; i < 1000; i++) {
      HOLDS(has_pattern(blocks[i], 100, i), "a block changed in the child");
      free(blocks[i]);
    }
    use_everything();
    _exit(0);
  }
  await(child);
  for (unsigned i = 0; i < 1000; i++) {
    HOLDS(has_pattern(blocks[i], 100, i), "the child changed a block of its parent");
    free(blocks[i]);
  }
}

static void load_and_unload(void) {
  for (unsigned i = 0; i < 30; i++) {
    void* library = dlopen("libm.so.6", RTLD_NOW);
    if (!library) unsupported("libm.so.6 cannot be loaded");
    free(malloc(100));
    dlclose(library);
  }
}

static void* kept_to_the_end;
static void at_the_end(void) {
  free(kept_to_the_end);
  use_everything();
}
static void exit_handlers(void) {
  kept_to_the_end = malloc(5000);
  atexit(at_the_end);
}

static volatile sig_atomic_t signals;
static void count_signal(int number) {
  (void)number;
  signals++;
}
static void signals_interrupt(void) {
  struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &action, NULL);
  ualarm(500, 500);
  for (unsigned i = 0; i < 300; i++) use_everything();
  ualarm(0, 0);
  HOLDS(signals > 0, "no signal came");
}

const check process_checks[] = {
    {"fork", "fork while other threads allocate: the child can allocate at once", fork_while_threads_allocate, false},
    {"fork-threads", "a forked child may have threads and children of its own", threads_in_the_child, false},
    {"fork-blocks", "a child may free what its parent allocated, without the parent noticing", child_frees_parents,
     false},
    {"vfork", "vfork and exec", vfork_and_exec, false},
    {"dlopen", "libraries come and go", load_and_unload, false},
    {"exit", "atexit handlers may allocate and free", exit_handlers, false},
    {"signals", "signals interrupt malloc and free without harm", signals_interrupt, false},
    {0}};
