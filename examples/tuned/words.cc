// A batch job: counts words and pairs of words of a made-up text, prints the most frequent. Argument: seed.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

int main(int count, char** arguments) {
  std::mt19937 random(count > 1 ? std::atoi(arguments[1]) : 1);
  std::unordered_map<std::string, std::vector<unsigned>> places;
  std::map<std::string, unsigned> pairs;
  std::string before;
  for (unsigned place = 0; place < 600000; place++) {
    const double rank = std::pow(random() / 4294967296.0, 4);
    std::string word = "word-" + std::to_string(static_cast<unsigned>(rank * 60000));
    if (word.size() % 3 == 0) word += "-of-a-longer-kind-" + std::to_string(place % 7);
    places[word].push_back(place);
    if (place % 4 == 0) pairs[before + " " + word]++;
    before = word;
  }
  std::vector<std::pair<size_t, std::string>> order;
  for (auto& [word, where] : places) order.emplace_back(where.size(), word);
  std::sort(order.rbegin(), order.rend());
  for (size_t i = 0; i < 3; i++) std::printf("%s %zu\n", order[i].second.c_str(), order[i].first);
  std::printf("%zu words, %zu pairs\n", places.size(), pairs.size());
}
