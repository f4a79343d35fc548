// A translation unit that keeps a compiler's heap busy: much of the standard library, and templates instantiated.
#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <regex>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

int main() {
  std::map<std::string, std::vector<std::variant<int, double, std::string>>> rows;
  std::unordered_map<std::string, std::function<int(int)>> functions;
  for (int i = 0; i < 100; i++) rows[std::to_string(i)].emplace_back(i);
  functions["twice"] = [](int x) { return 2 * x; };
  std::mt19937 random;
  std::vector<std::string> names;
  for (auto& [name, row] : rows) names.push_back(name);
  std::shuffle(names.begin(), names.end(), random);
  std::sort(names.begin(), names.end());
  return std::regex_match(names.front(), std::regex("[0-9]+")) ? functions["twice"](0) : 1;
}
