#include "os/numbered_file.h"

#include "os/process.h"
#include "os/shared_memory.h"

namespace hs::os {

namespace {

constexpr uint32_t kImagesPerPid = 100000;

}  // namespace

char* append(char* at, const char* end, const char* text) {
  while (*text != '\0' && at < end) *at++ = *text++;
  *at = '\0';
  return at;
}

char* append(char* at, const char* end, uint32_t number) {
  char digits[11];
  char* digit = digits + sizeof digits;
  *--digit = '\0';
  do {
    *--digit = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number != 0);
  return append(at, end, digit);
}

int create_numbered_file(const char* directory, const char* suffix, char (&path)[kPathBytes]) {
  const char* end = path + sizeof path - 1;
  for (uint32_t image = 1; image < kImagesPerPid; ++image) {
    char* at = append(append(append(path, end, directory), end, "/"), end, process_id());
    append(append(append(at, end, "."), end, image), end, suffix);
    const int file = create_file(path);
    if (file >= 0) return file;
    if (!file_exists(path)) return kNoFile;  // the directory cannot be used
  }
  return kNoFile;
}

}  // namespace hs::os
