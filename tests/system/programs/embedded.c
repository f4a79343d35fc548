// An interpreter that is loaded while the program runs, as a plugin would: embedded LIBRARY SCRIPT.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int count, char** arguments) {
  if (count < 3) return 2;
  void* library = dlopen(arguments[1], RTLD_NOW | RTLD_GLOBAL);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 3;
  }
  void (*initialize)(void) = (void (*)(void))dlsym(library, "Py_Initialize");
  int (*run)(const char*) = (int (*)(const char*))dlsym(library, "PyRun_SimpleString");
  initialize();
  char code[1024];
  snprintf(code, sizeof code, "import sys\nsys.argv = ['x', '40']\nexec(open('%s').read())\n", arguments[2]);
  return run(code);
}
