#pragma once

#include <fmt/format.h>

#include <chrono>
#include <string>

#include "base/output.hpp"
#include "base/terminal.hpp"

namespace llama3d {

/// How far a command is, on standard error: a line that changes on a terminal, one now and then elsewhere.
class ProgressLine {
 public:
  /// Whether it is time to show() something.
  bool due() const {
    const auto pause = terminal_ ? std::chrono::milliseconds(200) : std::chrono::seconds(30);
    return std::chrono::steady_clock::now() - last_ >= pause;
  }
  void show(const std::string& text) {
    last_ = std::chrono::steady_clock::now();
    print_log("{}{}{}", terminal_ ? "\r\033[K" : "", text, terminal_ ? "" : "\n");
    shown_ = true;
  }
  void clear() const {
    if (terminal_ && shown_) print_log("\r\033[K");
  }
  /// Since it was made.
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now(), last_ = begin_;
  bool terminal_ = stderr_is_terminal(), shown_ = false;
};

}  // namespace llama3d
