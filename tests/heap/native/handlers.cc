// operator new asks the handler until there is memory or it gives up; nothrow new never ends the program.
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

static std::vector<void*> reserve;
static int calls = 0;

static void give_some() {
  ++calls;
  if (reserve.empty()) {
    std::set_new_handler(nullptr);
    return;
  }
  std::free(reserve.back());
  reserve.pop_back();
}

int main() {
  reserve.reserve(64);
  for (void* block; reserve.size() < 64 && (block = std::malloc(1 << 20)) != nullptr;) reserve.push_back(block);
  const auto had = reserve.size();
  std::set_new_handler(give_some);
  // Eight of them are needed before eight MiB are there in one.
  char* block = new char[8 << 20];
  std::printf("had %d handler %s block %d\n", had < 64, calls >= 2 ? "several" : "once", block != nullptr);
  delete[] block;
  std::set_new_handler(nullptr);
  void* none = ::operator new(std::size_t{1} << 40, std::nothrow);
  std::printf("nothrow %d\n", none == nullptr);
  try {
    block = new char[std::size_t{1} << 40];
    std::printf("no exception %p\n", static_cast<void*>(block));
  } catch (const std::bad_alloc&) {
    std::printf("bad_alloc\n");
  }
  // A handler that throws something of its own, out of a nothrow new too.
  std::set_new_handler([] { throw std::bad_alloc(); });
  none = ::operator new(std::size_t{1} << 40, std::nothrow);
  std::printf("nothrow over a handler that throws %d\n", none == nullptr);
}
