/* Drives a libosmem.so (any: it is preloaded) through a list of operations and records every system call made
 * inside them, without privileges: a seccomp filter turns each system call of this process into a SIGSYS, and
 * the handler carries it out from the single instruction that the filter lets through. So nothing escapes,
 * neither the C library's own brk nor an inline `syscall`, and the result is what the kernel said.
 *
 *     LD_PRELOAD=libosmem.so osmem_driver FD        FD: the shared memory described in driver.h
 *
 * Before the first operation nothing here touches the break or malloc: the library finds the process as a
 * fresh C program would.
 */
#define _GNU_SOURCE

#include "driver.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "osmem.h"

#pragma weak os_malloc
#pragma weak os_calloc
#pragma weak os_realloc
#pragma weak os_free

static struct head* head;
static struct operation* operations;
static struct answer* answers;
static struct system_call* system_calls;
static struct heap_block* heap_blocks;
static uint32_t current; /* the operation under way */

/* ---- One door to the kernel -------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define FILTER_ARCHITECTURE AUDIT_ARCH_X86_64
#define REGISTER(context, name) ((context)->uc_mcontext.gregs[name])
#define NUMBER_OF(context) REGISTER(context, REG_RAX)
#define RESULT_OF(context) REGISTER(context, REG_RAX)
static const int argument_registers[6] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
#define ARGUMENT_OF(context, i) REGISTER(context, argument_registers[i])
__asm__(
    ".text\n.type kernel, @function\nkernel:\n"
    "mov %rdi, %rax\n mov %rsi, %rdi\n mov %rdx, %rsi\n mov %rcx, %rdx\n mov %r8, %r10\n mov %r9, %r8\n"
    "mov 8(%rsp), %r9\n syscall\nkernel_door:\n ret\n.size kernel, . - kernel\n");
#elif defined(__aarch64__)
#define FILTER_ARCHITECTURE AUDIT_ARCH_AARCH64
#define NUMBER_OF(context) ((context)->uc_mcontext.regs[8])
#define RESULT_OF(context) ((context)->uc_mcontext.regs[0])
#define ARGUMENT_OF(context, i) ((context)->uc_mcontext.regs[i])
__asm__(
    ".text\n.type kernel, %function\nkernel:\n"
    "mov x8, x0\n mov x0, x1\n mov x1, x2\n mov x2, x3\n mov x3, x4\n mov x4, x5\n mov x5, x6\n svc #0\n"
    "kernel_door:\n ret\n.size kernel, . - kernel\n");
#else
#error "the driver knows the registers of x86-64 and aarch64"
#endif

long kernel(long number, long a, long b, long c, long d, long e, long f);
extern const char kernel_door[];

static int would_leave_the_cage(long number) {
  switch (number) {
    case SYS_clone:
    case SYS_clone3:
    case SYS_execve:
    case SYS_execveat:
#if defined(__x86_64__)
    case SYS_fork:
    case SYS_vfork:
#endif
      return 1;
    default:
      return 0;
  }
}

static void on_system_call(int signal, siginfo_t* info, void* interrupted) {
  (void)signal;
  (void)info;
  ucontext_t* context = interrupted;
  long number = (long)NUMBER_OF(context);
  long a[6];
  for (int i = 0; i < 6; i++) a[i] = (long)ARGUMENT_OF(context, i);

  struct system_call unseen, *record = &unseen;
  if (head->system_call_count < head->system_call_room)
    record = &system_calls[head->system_call_count++];
  else
    head->dropped_count++;
  record->operation = current;
  record->number = (uint32_t)number;
  for (int i = 0; i < 6; i++) record->arguments[i] = (uint64_t)a[i];
  /* A child or another program would run without this handler, and die of the first system call it makes. */
  record->result = would_leave_the_cage(number) ? -EPERM : kernel(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  RESULT_OF(context) = record->result;
}

static int install_filter(void) {
  uint64_t door = (uint64_t)(uintptr_t)kernel_door;
  const uint32_t low = offsetof(struct seccomp_data, instruction_pointer);
  struct sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FILTER_ARCHITECTURE, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 4, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)door, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low + 4),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(door >> 32), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
  };
  struct sock_fprog program = {.len = sizeof rules / sizeof *rules, .filter = rules};
  struct sigaction action = {.sa_sigaction = on_system_call, .sa_flags = SA_SIGINFO | SA_NODEFER};
  if (sigaction(SIGSYS, &action, NULL) != 0) return errno;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno;
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 ? 0 : errno;
}

/* ---- The contents of payloads ------------------------------------------------------------------------ */

/* Of a very large payload only the beginning and the last byte are used: a mapping's untouched pages cost
 * nothing. */
enum { TOUCHED_BYTES = 1 << 20 };

static unsigned char pattern(uint32_t operation, uint64_t i) {
  return (unsigned char)((operation + 1) * 37u + i * 11u + (i >> 8) * 3u);
}

static uint64_t touched(uint64_t bytes) { return bytes < TOUCHED_BYTES ? bytes : TOUCHED_BYTES; }

static void fill(uint32_t operation, unsigned char* payload, uint64_t bytes) {
  for (uint64_t i = 0; i < touched(bytes); i++) payload[i] = pattern(operation, i);
  payload[bytes - 1] = pattern(operation, bytes - 1);
}

static int holds(uint32_t operation, const unsigned char* payload, uint64_t bytes) {
  unsigned char differs = 0; /* no early way out: like this the compiler compares many bytes at a time */
  for (uint64_t i = 0; i < touched(bytes); i++) differs |= payload[i] ^ pattern(operation, i);
  return !differs;
}

static uint32_t checksum(const unsigned char* payload, uint64_t bytes) {
  enum { LONGEST_WITHOUT_OVERFLOW = 5552 }; /* as in zlib's Adler-32 */
  uint32_t sum = 1, sums = 0;
  for (uint64_t i = 0; i < bytes;) {
    uint64_t end = bytes - i < LONGEST_WITHOUT_OVERFLOW ? bytes : i + LONGEST_WITHOUT_OVERFLOW;
    for (; i < end; i++) {
      sum += payload[i];
      sums += sum;
    }
    sum %= 65521;
    sums %= 65521;
  }
  return sums << 16 | sum;
}

/* ---- Carrying out the operations --------------------------------------------------------------------- */

static uint64_t* requested_bytes; /* of each operation's result while it is live, else 0 */

static int is_live(int32_t source) {
  return source >= 0 && requested_bytes[source] != 0 && answers[source].result != 0;
}

static int is_on_heap(uint64_t address) {
  return address >= head->heap_start && address < (uint64_t)kernel(SYS_brk, 0, 0, 0, 0, 0, 0);
}

static void carry_out(uint32_t index) {
  struct operation* operation = &operations[index];
  struct answer* answer = &answers[index];
  int32_t source = operation->source;
  unsigned char* old = source >= 0 ? (unsigned char*)(uintptr_t)answers[source].result : NULL;
  int source_was_live = is_live(source);
  uint64_t old_bytes = source_was_live ? requested_bytes[source] : 0;
  uint64_t bytes = operation->first;
  unsigned char* result = NULL;

  current = index;
  if (source_was_live && !holds((uint32_t)source, old, old_bytes)) answers[source].findings |= CONTENT_DAMAGED;
  int old_on_heap = source_was_live && is_on_heap((uint64_t)(uintptr_t)old);

  answer->phase = IN_CALL;
  switch (operation->call) {
    case MALLOC:
      result = os_malloc(operation->first);
      break;
    case CALLOC:
      result = os_calloc(operation->first, operation->second);
      if (__builtin_mul_overflow(operation->first, operation->second, &bytes)) bytes = 0;
      break;
    case REALLOC:
      result = os_realloc(old, operation->first);
      break;
    default:
      os_free(old);
      break;
  }
  answer->result = (uint64_t)(uintptr_t)result;
  answer->phase = IN_PAYLOAD;

  if (result && bytes) {
    if (operation->call == CALLOC)
      for (uint64_t i = 0; i < touched(bytes); i++)
        if (result[i]) {
          answer->findings |= CALLOC_NOT_ZERO;
          break;
        }
    if (operation->call == REALLOC && source_was_live) {
      uint64_t kept = touched(old_bytes < bytes ? old_bytes : bytes);
      answer->kept_bytes = (uint32_t)kept;
      answer->kept_checksum = checksum(result, kept);
      if (!holds((uint32_t)source, result, kept)) answer->findings |= CONTENT_NOT_KEPT;
      if (old_on_heap && result != old && !holds((uint32_t)source, old, old_bytes)) answer->findings |= OLD_DISTURBED;
    }
    requested_bytes[index] = bytes;
    fill(index, result, bytes);
  }
  int source_is_gone = operation->call == FREE_CALL || (operation->call == REALLOC && (result || !operation->first));
  if (source_was_live && source_is_gone) requested_bytes[source] = 0;
  answer->phase = DONE;
}

/* The heap as its own headers tell it (size first, then status), from the first block to the break. */
static void walk_heap(void) {
  uint64_t end = (uint64_t)kernel(SYS_brk, 0, 0, 0, 0, 0, 0);
  uint64_t address = head->heap_start;
  while (address + head->meta_bytes <= end && head->block_count < head->block_room) {
    uint64_t size = *(uint64_t*)(uintptr_t)address;
    heap_blocks[head->block_count++] =
        (struct heap_block){address, size, *(int32_t*)(uintptr_t)(address + sizeof size)};
    if (size >= end - address) break;
    address += head->meta_bytes + size;
  }
}

/* ---- The start ------------------------------------------------------------------------------------- */

static int map_shared(int fd) {
  struct stat file;
  if (fstat(fd, &file) != 0) return 0;
  char* base = mmap(NULL, (size_t)file.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) return 0;
  close(fd);
  head = (struct head*)base;
  operations = (struct operation*)(head + 1);
  answers = (struct answer*)(operations + head->operation_count);
  system_calls = (struct system_call*)(answers + head->operation_count);
  heap_blocks = (struct heap_block*)(system_calls + head->system_call_room);
  return head->magic == DRIVER_MAGIC;
}

static void set_limits(void) {
  struct rlimit none = {0, 0}, output = {1 << 20, 1 << 20}, seconds = {10, 10};
  setrlimit(RLIMIT_CORE, &none);
  setrlimit(RLIMIT_FSIZE, &output);
  setrlimit(RLIMIT_CPU, &seconds);
  /* What the model assumes too (ADDRESS_SPACE_BYTES), so that both refuse the same requests. */
  struct rlimit address_space = {1ul << 30, 1ul << 30};
  setrlimit(RLIMIT_AS, &address_space);
}

int main(int argc, char** argv) {
  if (argc != 2 || !map_shared(atoi(argv[1]))) return 2;
  head->error = (uint32_t)((!os_malloc) | (!os_calloc) << 1 | (!os_realloc) << 2 | (!os_free) << 3);
  if (head->error) {
    head->state = SYMBOL_MISSING;
    return 2;
  }
  uint64_t* room = mmap(NULL, (head->operation_count + 1) * sizeof *room, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) return 2;
  requested_bytes = room;
  set_limits();
  head->heap_start = (uint64_t)kernel(SYS_brk, 0, 0, 0, 0, 0, 0);
  int refused = install_filter();
  if (refused) {
    head->error = (uint32_t)refused;
    head->state = NO_FILTER;
    return 2;
  }
  head->state = RUNNING;
  for (uint32_t i = 0; i < head->operation_count; i++) carry_out(i);
  for (uint32_t i = 0; i < head->operation_count; i++)
    if (is_live((int32_t)i) && !holds(i, (unsigned char*)(uintptr_t)answers[i].result, requested_bytes[i]))
      answers[i].findings |= CONTENT_DAMAGED;
  if (head->meta_bytes) walk_heap();
  head->state = FINISHED;
  kernel(SYS_exit_group, 0, 0, 0, 0, 0, 0);
  __builtin_unreachable();
}
