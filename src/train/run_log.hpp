#pragma once
// Messages of a run for people, on standard error.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "train/progress.hpp"

namespace llama3d {

/// Silent on every rank but the first, so that all ranks may call it alike. It outlives the
/// function that taking_notes() gives.
class RunLog {
 public:
  explicit RunLog(bool speaks) : speaks_(speaks) {}

  /// A line. Whatever a terminal acts on stands there as an escape.
  void note(const std::string& text);
  /// Several, which keep their line feeds.
  void notes(const std::string& text);
  /// note(), for those who take a function.
  std::function<void(const std::string&)> taking_notes() {
    return [this](const std::string& text) { note(text); };
  }

  /// Between these there is a progress bar or a line every `interval` steps, and notes stand above the bar.
  void begin_steps(std::int64_t first_step, std::int64_t steps, std::int64_t interval);
  void step(const ProgressReport& report);
  void end_steps() { progress_.reset(); }

 private:
  bool speaks_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace llama3d
