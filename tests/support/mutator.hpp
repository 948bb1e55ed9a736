#pragma once
// Damages JSON at random, the same way in every run.

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <string>

namespace llama3d::test {

class Mutator {
 public:
  explicit Mutator(std::uint32_t seed) : random_(seed) {}

  std::string mutated(std::string text) {
    for (std::size_t i = 0, times = 1 + below(4); i < times; ++i) mutate(text);
    return text;
  }
  std::size_t below(std::size_t end) {
    return std::uniform_int_distribution<std::size_t>(0, end - 1)(random_);
  }

 private:
  void mutate(std::string& text) {
    const std::size_t at = text.empty() ? 0 : below(text.size());
    const std::size_t length = std::min(text.size() - at, 1 + below(24));
    switch (below(8)) {
      case 0:
        if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
        if (!text.empty()) text[at] = static_cast<char>(below(256));
        break;
      case 2: text.erase(at, length); break;
      case 3: text.insert(at, text.substr(at, length)); break;
      case 4: text.insert(at, std::string(1 + below(40), "[{\"0,\\"[below(6)])); break;
      case 5: text.resize(at); break;
      default: replace_number(text, at);
    }
  }
  /// The next number, by one that is at some edge.
  void replace_number(std::string& text, std::size_t from) {
    static const std::array<const char*, 16> edges = {"0",
                                                      "1",
                                                      "-1",
                                                      "4",
                                                      "7",
                                                      "8",
                                                      "4294967296",
                                                      "9223372036854775807",
                                                      "9223372036854775808",
                                                      "1e9",
                                                      "1e400",
                                                      "18446744073709551615",
                                                      "99999999999999999999",
                                                      "0.5",
                                                      "null",
                                                      "[]"};
    const std::size_t begin = text.find_first_of("0123456789", from);
    if (begin == std::string::npos) return;
    const std::size_t end = std::min(text.find_first_not_of("0123456789", begin), text.size());
    text.replace(begin, end - begin, edges[below(edges.size())]);
  }

  std::mt19937 random_;
};

}  // namespace llama3d::test
