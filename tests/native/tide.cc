// A fall is an ebb unless the program has shown that it makes such falls good.
#include "heap/tide.h"

#include "expect.h"

namespace {

using hs::Tide;
constexpr size_t kLeast = Tide::least_pages;

struct Program {
  Tide tide = {};
  size_t level = 0;
  uint64_t now_ms = 10'000;

  void rise_to(size_t wanted) {
    while (level < wanted) tide.rise(++level);
  }
  void fall_to(size_t wanted) {
    while (level > wanted) {
      tide.fall(level, level - 1, now_ms);
      level--;
    }
  }
};

void a_single_spike_ends_in_an_ebb() {
  Program program;
  program.rise_to(kLeast);
  program.rise_to(10 * kLeast);
  program.fall_to(6 * kLeast);
  EXPECT(!program.tide.is_ebb());
  program.fall_to(4 * kLeast);
  EXPECT(program.tide.is_ebb());
  EXPECT(program.tide.ebbs() == 1);
  program.fall_to(kLeast);
  EXPECT(program.tide.is_ebb());
  EXPECT(program.tide.ebbs() == 3);  // told again whenever half of it is left
  program.rise_to(kLeast + kLeast / 8);
  EXPECT(program.tide.is_ebb());
  program.rise_to(2 * kLeast);
  EXPECT(!program.tide.is_ebb());
}

void a_small_program_has_no_tide() {
  Program program;
  for (int round = 0; round < 10; ++round) {
    program.rise_to(kLeast - 1);
    program.fall_to(0);
    EXPECT(!program.tide.is_ebb());
  }
}

void what_comes_back_every_time_is_no_ebb_from_the_second_time_on() {
  Program program;
  for (int round = 0; round < 20; ++round) {
    program.rise_to(10 * kLeast);
    program.fall_to(kLeast);
    EXPECT(program.tide.is_ebb() == (round == 0));
    program.now_ms += 300;
  }
  // Twice as deep as whatever was made good.
  program.rise_to(40 * kLeast);
  program.fall_to(kLeast);
  EXPECT(program.tide.is_ebb());
}

void what_was_made_good_is_forgotten_in_two_windows() {
  Program program;
  for (int round = 0; round < 3; ++round) {
    program.rise_to(10 * kLeast);
    program.fall_to(kLeast);
  }
  EXPECT(!program.tide.is_ebb());
  program.rise_to(10 * kLeast);
  program.now_ms += 2 * Tide::window_ms;
  program.fall_to(kLeast);
  EXPECT(program.tide.is_ebb());
}

// Nothing that anybody does makes it ebb while the level is above half of the highest of the last two windows.
void at_random_an_ebb_is_below_half_of_the_highest() {
  Draw draw(7);
  Program program;
  size_t highest = 0;
  for (int step = 0; step < 3000; ++step) {
    const size_t wanted = draw.below(20 * kLeast);
    program.rise_to(wanted);
    program.fall_to(wanted);
    highest = wanted > highest ? wanted : highest;
    program.now_ms += draw.below(400);
    if (program.tide.is_ebb()) EXPECT(program.level <= highest / 2 + kLeast / 4);
  }
}

}  // namespace

int main() {
  a_single_spike_ends_in_an_ebb();
  a_small_program_has_no_tide();
  what_comes_back_every_time_is_no_ebb_from_the_second_time_on();
  what_was_made_good_is_forgotten_in_two_windows();
  at_random_an_ebb_is_below_half_of_the_highest();
}
