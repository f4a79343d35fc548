// One thread: blocks of 16 to 1024 bytes in random order, 20,000 of them live, each written once.
#include <cstdint>
#include <cstdlib>
#include <vector>

int main(int argc, char** argv) {
  const long pairs = argc > 1 ? atol(argv[1]) : 20'000'000;
  std::vector<char*> live(20'000, nullptr);
  uint64_t state = 0x2545F4914F6CDD1D;
  for (long pair = 0; pair < pairs; ++pair) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    char*& place = live[(state >> 16) % live.size()];
    free(place);
    place = static_cast<char*>(malloc(16 + (state >> 40) % 1009));
    place[0] = static_cast<char>(pair);
  }
  for (char* block : live) free(block);
}
