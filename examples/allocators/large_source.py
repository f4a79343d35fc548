"""Write one large C++ file: `python large_source.py FILE`."""

import sys
from pathlib import Path

FUNCTIONS = 50

lines = ["#include <map>", "#include <string>", "#include <vector>"]
for number in range(FUNCTIONS):
    lines.append(
        f"int work{number}(std::vector<int>& v, std::map<std::string, int>& m) {{\n"
        f"  for (int i = 0; i < {number + 3}; ++i) {{\n"
        f"    v.push_back(i * {number}); m[std::to_string(i)] += v[i];\n  }}\n"
        f"  int sum = 0; for (auto& [key, value] : m) sum += value + (int)key.size();\n"
        f"  return sum + {number};\n}}"
    )
Path(sys.argv[1]).write_text("\n".join(lines) + "\n")
