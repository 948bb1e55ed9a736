#include "train/progress.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/output.hpp"
#include "base/printable.hpp"
#include "base/terminal.hpp"

namespace llama3d {

Progress::Progress(std::int64_t first_step, std::int64_t steps, std::int64_t interval)
    : terminal_(stderr_is_terminal()), first_step_(first_step), steps_(steps), interval_(interval) {}

Progress::~Progress() {
  if (bar_visible_) write_log("\n");
}

std::string Progress::remaining(std::int64_t step) const {
  const std::int64_t done = step - first_step_;
  if (done <= 0) return "?";
  const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  const auto seconds =
      static_cast<std::int64_t>(elapsed / static_cast<double>(done) * static_cast<double>(steps_ - step));
  if (seconds >= 3600) return fmt::format("{}h{:02}m", seconds / 3600, seconds / 60 % 60);
  return fmt::format("{}m{:02}s", seconds / 60, seconds % 60);
}

std::string Progress::bar(std::int64_t step) const {
  constexpr std::int64_t width = 24;
  const std::int64_t filled = steps_ > 0 ? std::clamp<std::int64_t>(step * width / steps_, 0, width) : width;
  return std::string(static_cast<std::size_t>(filled), '#') +
         std::string(static_cast<std::size_t>(width - filled), '.');
}

void Progress::step(const ProgressReport& r) {
  if (terminal_) {
    print_log("\r\033[K[{}] {}/{}  loss {:.4f}  {:.0f} tokens/s  ETA {}", bar(r.step), r.step, steps_, r.loss,
              r.tokens_per_second, remaining(r.step));
    bar_visible_ = true;
  } else if (r.step == first_step_ + 1 || r.step == steps_ || (interval_ > 0 && r.step % interval_ == 0)) {
    print_log("step {}/{}  loss {:.4f}  grad norm {:.3f}  lr {:.2e}  {:.0f} tokens/s  ETA {}\n", r.step,
              steps_, r.loss, r.gradient_norm, r.learning_rate, r.tokens_per_second, remaining(r.step));
  }
}

void Progress::clear_bar() {
  if (bar_visible_) write_log("\r\033[K");
  bar_visible_ = false;
}

void Progress::message(const std::string& text) {
  clear_bar();
  print_log("{}\n", printable_lines(text));
}

}  // namespace llama3d
