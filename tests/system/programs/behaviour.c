// What a library that watches could disturb, by name of the scenario: run it watched and unwatched and compare.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "tally.h"

extern char** environ;
static char** all_arguments;

static void churn(int turns) {
  void* blocks[16] = {0};
  unsigned seed = 1;
  for (int turn = 0; turn < turns; ++turn) {
    seed = seed * 1664525 + 1013904223;
    const int place = (seed >> 16) % 16;
    free(blocks[place]);
    blocks[place] = malloc(1 + (seed >> 8) % (turn % 50 ? 2000 : 200000));
  }
  for (int place = 0; place < 16; ++place) free(blocks[place]);
}

static int list_descriptors(void) {
  for (int number = 0; number < 4096; ++number) {
    if (fcntl(number, F_GETFD) != -1) say("%d ", number);
  }
  return 0;
}

static volatile int stop;
static void* churn_until_stop(void* unused) {
  while (!stop) churn(200);
  return unused;
}
static void* churn_and_rest_until_stop(void* unused) {
  while (!stop) {
    churn(20);
    usleep(50);
  }
  return unused;
}

static int fork_under_load(void) {
  pthread_t threads[4];
  for (int number = 0; number < 4; ++number) pthread_create(&threads[number], NULL, churn_and_rest_until_stop, NULL);
  int sum = 0;
  void* kept = malloc(5000);
  for (int number = 0; number < 500; ++number) {
    const pid_t child = fork();
    if (child == 0) {
      free(kept);
      churn(30);
      _exit(number % 7);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return 9;
    sum += WEXITSTATUS(status);
  }
  stop = 1;
  for (int number = 0; number < 4; ++number) pthread_join(threads[number], NULL);
  say("%d\n", sum);
  return 0;
}

static int count_here(void) { return 3; }

static int bare_forks(void) {
  pid_t (*bare)(void) = (pid_t (*)(void))dlsym(RTLD_DEFAULT, "_Fork");
  if (bare == NULL) return 0;
  for (int number = 0; number < 5; ++number) {
    const pid_t child = bare();
    if (child == 0) {
      for (int block = 0; block < 1000; ++block) (void)!malloc(100);
      _exit(count_here());
    }
    int status;
    waitpid(child, &status, 0);
    if (WEXITSTATUS(status) != 3) return 9;
  }
  return 0;
}

static int spawns(void) {
  int status;
  for (int number = 0; number < 3; ++number) {
    pid_t child;
    char* words[] = {"/bin/sh", "-c", "exit 5", NULL};
    if (posix_spawn(&child, "/bin/sh", NULL, NULL, words, environ) != 0) return 9;
    waitpid(child, &status, 0);
    if (WEXITSTATUS(status) != 5) return 8;
    child = vfork();
    if (child == 0) {
      execl("/bin/sh", "sh", "-c", "exit 6", NULL);
      _exit(1);
    }
    waitpid(child, &status, 0);
    if (WEXITSTATUS(status) != 6) return 7;
    child = vfork();
    if (child == 0) _exit(4);
    waitpid(child, &status, 0);
    if (WEXITSTATUS(status) != 4) return 6;
  }
  if (system("exit 3") != 3 << 8) return 5;
  FILE* pipe = popen("echo from a pipe", "r");
  char line[64] = "";
  if (fgets(line, sizeof line, pipe) == NULL) return 4;
  pclose(pipe);
  say("%s", line);
  return 0;
}

static int exec_chain(void) {
  const char* left = getenv("EXECS_LEFT");
  const int count = left ? atoi(left) : 5;
  (void)!malloc(1000 * (size_t)(count + 1));
  if (count == 0) return 42;
  char text[32];
  snprintf(text, sizeof text, "%d", count - 1);
  setenv("EXECS_LEFT", text, 1);
  execv("/proc/self/exe", all_arguments);
  return 9;
}

static int is_same_file(int one, int other) {
  struct stat first, second;
  return fstat(one, &first) == 0 && fstat(other, &second) == 0 && first.st_ino == second.st_ino;
}

// Leaves its parent, closes whatever is open, opens files of its own under all numbers, and forks again.
static int daemon_with_own_files(void) {
  int ends[2];
  if (pipe(ends) != 0) return 9;
  if (fork() == 0) {
    setsid();
    if (fork() != 0) _exit(0);
    const int answer = fcntl(ends[1], F_DUPFD, 900);
    for (int number = 0; number < 2000; ++number) {
      if (number != answer) close(number);
    }
    int opened = 0;
    for (int number = 0; number < 1020; ++number) {
      if (number != answer && fcntl(number, F_GETFD) == -1) opened += dup2(answer, number) == number;
    }
    churn(1000);
    int good = 0;
    const pid_t child = fork();
    if (child == 0) {
      churn(1000);
      for (int number = 0; number < 1020; ++number) good += is_same_file(number, answer);
      _exit(good == 1020 ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    for (int number = 0; number < 1020; ++number) good += is_same_file(number, answer);
    char text[64];
    const int length = snprintf(text, sizeof text, "%d opened, %d good, child %d\n", opened, good, WEXITSTATUS(status));
    (void)!write(answer, text, (size_t)length);
    _exit(0);
  }
  close(ends[1]);
  char text[64];
  const long length = read(ends[0], text, sizeof text);
  (void)!write(1, text, length > 0 ? (size_t)length : 0);
  while (wait(NULL) > 0) {
  }
  return 0;
}

static int dlopen_loop(void) {
  if (dlerror() != NULL) return 9;
  for (int number = 0; number < 300; ++number) {
    void* library = dlopen(number % 2 ? "libm.so.6" : "libresolv.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return 8;
    if (dlsym(library, "no_such_name") != NULL) return 7;
    if (dlerror() == NULL) return 6;
    dlclose(library);
  }
  return 0;
}

static volatile long handled;
static void on_timer(int number) {
  (void)number;
  free(malloc(100 + handled % 3000));
  ++handled;
}
static int handler_allocates(void) {
  struct sigaction action = {.sa_handler = on_timer};
  sigaction(SIGALRM, &action, NULL);
  const struct itimerval every = {{0, 500}, {0, 500}};
  setitimer(ITIMER_REAL, &every, NULL);
  while (handled < 200) {
    for (volatile int number = 0; number < 1000; ++number) {
    }
  }
  const struct itimerval never = {{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &never, NULL);
  return 0;
}

static void first(void) { say("first\n"); }
static void second(void) {
  free(malloc(100));
  say("second\n");
}
static int handlers_at_exit(void) {
  for (int number = 0; number < 40; ++number) atexit(first);
  atexit(second);
  return 7;
}
static int quick(void) {
  at_quick_exit(first);
  at_quick_exit(second);
  atexit(first);
  (void)!malloc(10);
  quick_exit(11);
}
static int leaves_at_once(void) {
  atexit(first);
  (void)!malloc(10);
  _exit(12);
}
static int aborts(void) {
  (void)!malloc(10);
  abort();
}
static void* leaves(void* unused) {
  free(malloc(10));
  exit(13);
  return unused;
}
static int another_thread_leaves(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, leaves, NULL);
  for (;;) pause();
}
static void* outlives(void* unused) {
  usleep(20000);
  churn(1000);
  say("outlived\n");
  return unused;
}
static int main_thread_ends(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, outlives, NULL);
  pthread_detach(thread);
  pthread_exit(NULL);
}
static int crashes(void) {
  (void)!malloc(10);
  raise(SIGSEGV);
  return 0;
}

static int locks_memory(void) {
  if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) return errno == EPERM || errno == ENOMEM ? 0 : 9;
  churn(5000);
  void* mapping = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return mapping == MAP_FAILED ? 8 : 0;
}

// A sandbox that kills for anything but what malloc, threads and leaving need.
static int sandboxed(void) {
  static const int allowed[] = {
      SYS_write,  SYS_exit,   SYS_exit_group,      SYS_rt_sigreturn,   SYS_brk,         SYS_mmap,
      SYS_munmap, SYS_mremap, SYS_mprotect,        SYS_madvise,        SYS_futex,       SYS_clone3,
      SYS_clone,  SYS_rseq,   SYS_set_robust_list, SYS_rt_sigprocmask, SYS_rt_sigaction};
  enum { kCount = sizeof allowed / sizeof *allowed };
  struct sock_filter code[2 * kCount + 2];
  code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (int number = 0; number < kCount; ++number) {
    code[1 + 2 * number] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[number], 0, 1);
    code[2 + 2 * number] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  code[2 * kCount + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  const struct sock_fprog program = {2 * kCount + 2, code};
  // A second arena of glibc's may read a file to learn whether it may shrink: that would be its death, not ours.
  mallopt(M_ARENA_MAX, 1);
  free(malloc(100));
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 9;
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return 8;
  churn(5000);
  pthread_t thread;
  stop = 0;
  if (pthread_create(&thread, NULL, churn_until_stop, NULL) != 0) return 7;
  churn(5000);
  stop = 1;
  pthread_join(thread, NULL);
  say("sandboxed\n");
  return 21;
}

static int names_and_limits(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  say("%ld %ld\n", (long)limit.rlim_cur, (long)limit.rlim_max);
  char name[16];
  prctl(PR_GET_NAME, name);
  say("%.4s %d\n", name, prctl(PR_GET_DUMPABLE));
  return 0;
}

static void* named_late(void* unused) {
  free(malloc(10));
  pthread_setname_np(pthread_self(), "named-late");
  pause();
  return unused;
}
static int late_names(void) {
  for (int number = 0; number < 3; ++number) {
    pthread_t thread;
    pthread_create(&thread, NULL, named_late, NULL);
  }
  usleep(30000);
  (void)!malloc(100);
  prctl(PR_SET_NAME, "main-late");
  return 14;
}

static int waits_in_constructor(void) {
  void* library = dlopen(getenv("WAITING_LIBRARY") ? getenv("WAITING_LIBRARY") : "libm.so.6", RTLD_NOW);
  return library == NULL ? 9 : 15;
}

static void child_of_limit(int generation) {
  // The limit of the parent holds here as well, and what it holds is counted.
  const int refused = malloc(40 << 20) == NULL && malloc(4 << 20) != NULL;
  if (!refused) _exit(8);
  if (generation > 0) {
    const pid_t child = fork();
    if (child == 0) child_of_limit(generation - 1);
    int status;
    waitpid(child, &status, 0);
    _exit(WEXITSTATUS(status));
  }
  _exit(16);
}
static int forks_under_limit(void) {
  void* held = malloc(30 << 20);
  if (held == NULL) return 7;
  const pid_t child = fork();
  if (child == 0) child_of_limit(2);
  int status;
  waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

static int grows_until_null(void) {
  long count = 0;
  while (malloc(1 << 20) != NULL) ++count;
  say("%s\n", count > 5 ? "enough" : "too little");
  return errno == ENOMEM ? 0 : 9;
}

int main(int count, char** arguments) {
  all_arguments = arguments;
  static const struct {
    const char* name;
    int (*act)(void);
  } scenarios[] = {{"list_descriptors", list_descriptors},
                   {"fork_under_load", fork_under_load},
                   {"bare_forks", bare_forks},
                   {"spawns", spawns},
                   {"exec_chain", exec_chain},
                   {"daemon_with_own_files", daemon_with_own_files},
                   {"dlopen_loop", dlopen_loop},
                   {"handler_allocates", handler_allocates},
                   {"handlers_at_exit", handlers_at_exit},
                   {"quick", quick},
                   {"leaves_at_once", leaves_at_once},
                   {"aborts", aborts},
                   {"another_thread_leaves", another_thread_leaves},
                   {"main_thread_ends", main_thread_ends},
                   {"crashes", crashes},
                   {"locks_memory", locks_memory},
                   {"sandboxed", sandboxed},
                   {"names_and_limits", names_and_limits},
                   {"grows_until_null", grows_until_null},
                   {"late_names", late_names},
                   {"waits_in_constructor", waits_in_constructor},
                   {"forks_under_limit", forks_under_limit}};
  for (size_t number = 0; number < sizeof scenarios / sizeof *scenarios; ++number) {
    if (count > 1 && strcmp(arguments[1], scenarios[number].name) == 0) return scenarios[number].act();
  }
  return 2;
}
