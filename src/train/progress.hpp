#pragma once
// The progress of a run for people: a bar that moves on a terminal, plain lines elsewhere.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

namespace llama3d {

struct ProgressReport {
  std::int64_t step = 0;
  double loss = 0, gradient_norm = 0, learning_rate = 0;
  double tokens_per_second = 0;
};

class Progress {
 public:
  /// A plain line every `interval` steps.
  Progress(std::int64_t first_step, std::int64_t steps, std::int64_t interval);
  ~Progress();
  void step(const ProgressReport& report);
  /// A line of its own above the bar.
  void message(const std::string& text);

 private:
  std::string bar(std::int64_t step) const;
  std::string remaining(std::int64_t step) const;
  void clear_bar();

  bool terminal_;
  std::int64_t first_step_, steps_, interval_;
  bool bar_visible_ = false;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace llama3d
