// Five ways to need too much memory, in C++: faults leak|spike|growth|fragmentation|storm.
// c++ -O1 -g -o faults faults.cc
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Answer {
  char text[400];
};

std::vector<Answer*> kept;

__attribute__((noinline)) void work(int turns) {
  volatile long sum = 0;
  for (int turn = 0; turn < turns * 1000; ++turn) sum = sum + turn;
}

__attribute__((noinline)) Answer* make_answer() {
  Answer* answer = new Answer;  // planted: leak
  std::memset(answer, 1, sizeof *answer);
  return answer;
}

void leak() {
  for (int turn = 0; turn < 20'000; ++turn) {
    kept.push_back(make_answer());
    if (turn % 20 == 0) work(40);
  }
}

__attribute__((noinline)) void load_everything() {
  std::vector<char> everything(24 << 20, 'x');  // planted: spike
  work(everything[5]);
}

void spike() {
  for (int turn = 0; turn < 100; ++turn) {
    work(2500);
    if (turn == 50) load_everything();
  }
}

__attribute__((noinline)) void remember(std::vector<std::string>& history) {
  history.emplace_back(500, 'x');  // planted: growth
}

void growth() {
  std::vector<std::string> history;
  for (int turn = 0; turn < 10'000; ++turn) {
    remember(history);
    if (turn % 20 == 0) work(80);
  }
}

__attribute__((noinline)) void* fill_block() {
  return std::memset(::operator new(1000), 1, 1000);  // planted: fragmentation
}

void fragmentation() {
  std::vector<void*> blocks;
  for (int block = 0; block < 40'000; ++block) blocks.push_back(fill_block());
  for (size_t block = 0; block < blocks.size(); ++block) {
    if (block % 8 != 0) ::operator delete(blocks[block]);
  }
  work(800'000);
}

__attribute__((noinline)) size_t format(int number) {
  const std::string text(200 + number % 100, 'x');  // planted: storm
  return text.size();
}

void storm() {
  volatile size_t sum = 0;
  for (int turn = 0; turn < 60'000; ++turn) sum = sum + format(turn);
}

}  // namespace

int main(int, char** arguments) {
  const std::string fault = arguments[1];
  if (fault == "leak") leak();
  if (fault == "spike") spike();
  if (fault == "growth") growth();
  if (fault == "fragmentation") fragmentation();
  if (fault == "storm") storm();
}
