#include "train/run_log.hpp"

#include "base/output.hpp"
#include "base/printable.hpp"

namespace llama3d {
namespace {

constexpr std::size_t longest_line = 4000;

}  // namespace

void RunLog::note(const std::string& text) {
  notes(printable(text, longest_line));
}

void RunLog::notes(const std::string& text) {
  if (!speaks_) return;
  if (progress_)
    progress_->message(text);
  else
    print_log("{}\n", printable_lines(text));
}

void RunLog::begin_steps(std::int64_t first_step, std::int64_t steps, std::int64_t interval) {
  if (speaks_) progress_ = std::make_unique<Progress>(first_step, steps, interval);
}

void RunLog::step(const ProgressReport& report) {
  if (progress_) progress_->step(report);
}

}  // namespace llama3d
