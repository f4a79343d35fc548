// Every operator new and delete; tells what it did.
#include <cerrno>
#include <cstdlib>
#include <initializer_list>
#include <new>

#include "tally.h"

namespace {

struct alignas(128) Wide {
  char bytes[300];
};

void* volatile keep;

template <class Make>
void fails(Make make) {
  try {
    keep = make();
    if (keep != nullptr) std::_Exit(3);
    ++tally.failures;
  } catch (const std::bad_alloc&) {
    ++tally.failures;
  }
}

int handler_calls = 0;
void give_up() {
  if (++handler_calls == 3) std::set_new_handler(nullptr);
}

void operators() {
  using std::align_val_t;
  using std::nothrow;
  for (size_t bytes : {0u, 1u, 24u, 25u, 1000u, 5000u, 300000u}) {
    took(::operator new(bytes), bytes);
    took(::operator new[](bytes), bytes);
    took(::operator new(bytes, nothrow), bytes);
    took(::operator new[](bytes, nothrow), bytes);
    took(::operator new(bytes, align_val_t{64}), bytes);
    took(::operator new[](bytes, align_val_t{4}), bytes);
    took(::operator new(bytes, align_val_t{4096}, nothrow), bytes);
    took(::operator new[](bytes, align_val_t{32}, nothrow), bytes);
    void* block = took(::operator new(bytes), bytes);
    ::operator delete(gives(block, bytes));
    block = took(::operator new[](bytes), bytes);
    ::operator delete[](gives(block, bytes));
    block = took(::operator new(bytes), bytes);
    ::operator delete(gives(block, bytes), bytes);
    block = took(::operator new[](bytes), bytes);
    ::operator delete[](gives(block, bytes), bytes);
    block = took(::operator new(bytes), bytes);
    ::operator delete(gives(block, bytes), nothrow);
    block = took(::operator new[](bytes), bytes);
    ::operator delete[](gives(block, bytes), nothrow);
    for (int array = 0; array < 2; ++array) {
      block = took(::operator new(bytes, align_val_t{64}), bytes);
      ::operator delete(gives(block, bytes), align_val_t{64});
      block = took(::operator new[](bytes, align_val_t{64}), bytes);
      ::operator delete[](gives(block, bytes), align_val_t{64});
    }
    block = took(::operator new(bytes, align_val_t{64}), bytes);
    ::operator delete(gives(block, bytes), bytes, align_val_t{64});
    block = took(::operator new[](bytes, align_val_t{64}), bytes);
    ::operator delete[](gives(block, bytes), bytes, align_val_t{64});
    block = took(::operator new(bytes, align_val_t{64}), bytes);
    ::operator delete(gives(block, bytes), align_val_t{64}, nothrow);
    block = took(::operator new[](bytes, align_val_t{64}), bytes);
    ::operator delete[](gives(block, bytes), align_val_t{64}, nothrow);
  }
  auto* wide = static_cast<Wide*>(took(new Wide, sizeof(Wide)));
  gives(wide, sizeof(Wide));
  delete wide;
  ::operator delete(nullptr);
}

// The failures of malloc that lie behind a failed operator: one, and one more for each call of the new-handler.
void failing() {
  constexpr size_t kHuge = size_t{1} << 62;
  // The first exception of a thread takes what it needs for good.
  fails([] { return ::operator new(kHuge); });
  fails([] { return ::operator new[](kHuge); });
  fails([] { return ::operator new(kHuge, std::nothrow); });
  fails([] { return ::operator new[](kHuge, std::nothrow); });
  fails([] { return ::operator new(kHuge, std::align_val_t{64}); });
  fails([] { return ::operator new[](kHuge, std::align_val_t{64}); });
  fails([] { return ::operator new(kHuge, std::align_val_t{64}, std::nothrow); });
  fails([] { return ::operator new[](kHuge, std::align_val_t{64}, std::nothrow); });
  if (std::getenv("WITH_HANDLER") != nullptr) {
    std::set_new_handler(give_up);
    fails([] { return ::operator new(kHuge); });
    handler_calls = 0;
    std::set_new_handler(give_up);
    fails([] { return ::operator new(kHuge, std::align_val_t{64}, std::nothrow); });
    if (handler_calls != 3) std::_Exit(5);
    tally.failures += 6;
  }
}

// Under a limit: every way to ask says no in its own words, and a block that cannot grow stays what it was.
void limited() {
  constexpr size_t kTooMuch = size_t{100} << 20;
  static void* blocks[1000];
  fails([] { return ::operator new(kTooMuch); });
  fails([] { return ::operator new[](kTooMuch); });
  fails([] { return ::operator new(kTooMuch, std::align_val_t{64}); });
  fails([] { return ::operator new(kTooMuch, std::nothrow); });
  fails([] { return ::operator new(kTooMuch, std::align_val_t{64}, std::nothrow); });
  errno = 0;
  if (malloc(kTooMuch) != nullptr || errno != ENOMEM) std::_Exit(11);
  errno = 0;
  if (calloc(kTooMuch, 1) != nullptr || errno != ENOMEM) std::_Exit(12);
  void* block = nullptr;
  if (posix_memalign(&block, 64, kTooMuch) != ENOMEM || block != nullptr) std::_Exit(13);
  errno = 0;
  if (aligned_alloc(64, kTooMuch) != nullptr || errno != ENOMEM) std::_Exit(14);
  char* text = static_cast<char*>(malloc(1000));
  memset(text, 'x', 1000);
  errno = 0;
  if (realloc(text, kTooMuch) != nullptr || errno != ENOMEM) std::_Exit(15);
  for (int at = 0; at < 1000; ++at) {
    if (text[at] != 'x') std::_Exit(16);
  }
  text = static_cast<char*>(realloc(text, 2000));
  if (text == nullptr || text[999] != 'x') std::_Exit(17);
  for (int round = 0; round < 3; ++round) {
    int count = 0;
    while (count < 1000 && (blocks[count] = malloc(50000)) != nullptr) ++count;
    if (count < 100 || count > 170) std::_Exit(18);
    while (count != 0) free(blocks[--count]);
  }
}

}  // namespace

int main(int count, char** arguments) {
  const char* what = count > 1 ? arguments[1] : "nothing";
  if (strcmp(what, "operators") == 0) operators();
  if (strcmp(what, "failing") == 0) failing();
  if (strcmp(what, "limited") == 0) limited();
  tell_tally();
}
