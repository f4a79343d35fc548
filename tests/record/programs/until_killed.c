// Allocates one block after another and says how many, in shared memory that outlives it.
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int count, char** words) {
  if (count < 2) return 2;
  const int file = open(words[1], O_RDWR);
  volatile uint64_t* done = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (done == MAP_FAILED) return 1;
  for (uint64_t number = 0;; ++number) {
    // The size tells which block it is.
    void* volatile block = malloc(10000 + number % 1000);
    *done = number + 1;
    if (number % 2 == 0) free(block);
    if (number % 512 == 511) usleep(50);
  }
}
