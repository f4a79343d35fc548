// From the moment a program restricts its own system calls, none is made for it that it might not make itself.
#include <linux/prctl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/compiler.h"
#include "os/process.h"

extern "C" {

// A sandbox begins with one of these.
HS_EXPORT int prctl(int option, ...) {
  va_list arguments;
  va_start(arguments, option);
  unsigned long given[4];
  for (unsigned long& argument : given) argument = va_arg(arguments, unsigned long);
  va_end(arguments);
  if (option == PR_SET_SECCOMP || option == PR_SET_NO_NEW_PRIVS) hs::os::is_restricted = true;
  return static_cast<int>(syscall(SYS_prctl, option, given[0], given[1], given[2], given[3]));
}

}  // extern "C"
