// The layout of each CPython is what its headers say, taken from the table that the interpreter itself begins with; where
// anything about the table is unknown, nothing is read.
#include "record/python_layout.h"

#include <initializer_list>

#include "expect.h"

using hs::record::PythonLayout;

namespace {

// clang-format off
// Of CPython 3.13.0, built for x86-64.
constexpr uint64_t k313[] = {
    0x7970677562656478, 0x30d00f0, 0, 283320, 608, 632, 194968, 7272, 7264, 7344, 7400, 7656, 7640, 7648, 16, 7752, 0, 7768,
    7760, 304, 0, 8, 16, 72, 152, 160, 232, 32, 80, 8, 0, 56, 72, 70, 208, 112, 120, 128, 136, 68, 52, 96, 104, 200, 16, 8,
    416, 24, 88, 168, 32, 24, 16, 40, 24, 16, 48, 32, 40, 24,
};
// Of CPython 3.14.10, built for x86-64.
constexpr uint64_t k314[] = {
    0x7970677562656478, 0x30e0af0, 0, 316616, 784, 808, 225864, 7280, 7272, 7344, 7360, 7408, 7688, 7672, 7680, 16, 7784, 0,
    7800, 7792, 7992, 0, 832, 0, 8, 16, 72, 152, 160, 232, 32, 88, 8, 0, 56, 80, 74, 64, 0, 216, 112, 120, 128, 136, 68, 52,
    96, 104, 208, 0, 16, 8, 416, 24, 88, 168, 40, 32, 16, 40,
};
// Of CPython 3.15.2, built for x86-64.
constexpr uint64_t k315[] = {
    0x7970677562656478, 0x30f02f0, 0, 346568, 912, 936, 226240, 7272, 7264, 7336, 7352, 7400, 7592, 7576, 7584, 16, 7736, 0,
    7752, 7744, 7944, 0, 888, 0, 8, 16, 72, 80, 88, 96, 176, 184, 256, 32, 36, 40, 136, 288, 0, 88, 8, 0, 56, 80, 74, 64, 0,
    216, 112, 120, 128, 136, 68, 52, 96, 104, 208, 0, 16, 8,
};
// clang-format on

uint32_t version_of(const uint64_t* table) { return static_cast<uint32_t>(table[1]); }

void expect_fields(const uint64_t* table, uint32_t state_frame, uint32_t owner, uint32_t start) {
  PythonLayout layout = {};
  EXPECT(hs::record::lay_out(version_of(table), table, layout) == nullptr);
  EXPECT(layout.state_frame == state_frame && !layout.is_indirect && layout.entry == 0);
  EXPECT(layout.code == 0 && layout.previous == 8 && layout.instruction == 56 && layout.owner == owner);
  EXPECT(layout.code_file == 112 && layout.code_name == 128 && layout.code_lines == 136);
  EXPECT(layout.code_first_line == 68 && layout.code_start == start);
  EXPECT(layout.ascii_bytes == 40 && layout.compact_bytes == 56);
}

struct Table {
  uint64_t words[60];
  explicit Table(const uint64_t* from) { memcpy(words, from, sizeof words); }
  bool is_refused(uint32_t version) const {
    PythonLayout layout = {};
    return hs::record::lay_out(version, words, layout) != nullptr;
  }
};

}  // namespace

int main() {
  expect_fields(k313, 72, 70, 200);
  expect_fields(k314, 72, 74, 208);
  expect_fields(k315, 72, 74, 208);

  PythonLayout layout = {};
  for (uint32_t known : {0x030B07F0u, 0x030C01F0u}) EXPECT(hs::record::lay_out(known, nullptr, layout) == nullptr);
  for (uint32_t unknown : {0u, 0x020712F0u, 0x030A0DF0u, 0x031000F0u, 0x040000F0u}) {
    EXPECT(hs::record::lay_out(unknown, k314, layout) != nullptr);
  }
  EXPECT(hs::record::lay_out(version_of(k314), nullptr, layout) != nullptr);
  for (const uint64_t* table : {k313, k314, k315}) {
    const uint32_t version = version_of(table);
    EXPECT(!Table(table).is_refused(version));
    EXPECT(Table(table).is_refused(version + 0x100));  // another one's table
    Table no_table(table);
    no_table.words[0] += 1;
    EXPECT(no_table.is_refused(version));
    Table alpha(table);
    alpha.words[1] = (version & ~0xffu) | 0xA7;
    EXPECT(alpha.is_refused(static_cast<uint32_t>(alpha.words[1])));
    Table free_threaded(table);
    free_threaded.words[2] = 1;
    EXPECT(free_threaded.is_refused(version));
    Table astray(table);
    for (uint64_t& word : astray.words) word = &word < astray.words + 3 ? word : uint64_t{1} << 40;
    EXPECT(astray.is_refused(version));
  }
}
