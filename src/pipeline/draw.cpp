#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.hpp"
#include "pipeline/simulator.hpp"

namespace llama3d {
namespace {

char letter_of(ActionKind kind) {
  switch (kind) {
    case ActionKind::forward: return 'F';
    case ActionKind::backward: return 'B';
    case ActionKind::backward_input: return 'I';
    case ActionKind::backward_weight: return 'W';
    default: return ' ';
  }
}

std::string label_of(const Action& action, bool with_chunk) {
  std::string label = fmt::format("{}{}", letter_of(action.kind), action.micro_batch);
  if (with_chunk) label += static_cast<char>('a' + action.chunk % 26);
  return label;
}

/// Columns a unit of time.
struct Scale {
  double columns_per_time = 0;
  std::size_t column(double time) const {
    return static_cast<std::size_t>(std::lround(time * columns_per_time));
  }
};

template <class Visit>
void for_each_compute(const std::vector<TimedAction>& line, Visit visit) {
  for (const TimedAction& timed : line) {
    if (is_compute(timed.action.kind) && timed.end > timed.begin) visit(timed);
  }
}

std::string draw_line(const std::vector<TimedAction>& line, const Scale& scale, std::size_t width,
                      bool with_chunk) {
  std::string text(width, '.');
  for_each_compute(line, [&](const TimedAction& timed) {
    const std::size_t begin = scale.column(timed.begin), end = scale.column(timed.end);
    if (begin == end) return;  // too short to be seen
    std::string cell = label_of(timed.action, with_chunk);
    const bool short_cell = end - begin <= cell.size() + 1;
    cell.resize(end - begin, short_cell ? ' ' : '=');
    text.replace(begin, cell.size(), cell);
  });
  return text;
}

}  // namespace

std::string draw(const Simulation& simulation) {
  constexpr double kMostCells = 500;  // a line stays readable however short the shortest computation is
  double shortest = std::numeric_limits<double>::infinity();
  std::size_t label_width = 0;
  bool with_chunk = false;
  for (const auto& line : simulation.timeline) {
    for_each_compute(line, [&](const TimedAction& timed) { with_chunk |= timed.action.chunk > 0; });
  }
  for (const auto& line : simulation.timeline) {
    for_each_compute(line, [&](const TimedAction& timed) {
      shortest = std::min(shortest, timed.end - timed.begin);
      label_width = std::max(label_width, label_of(timed.action, with_chunk).size());
    });
  }
  const double cell = std::max(shortest, simulation.makespan / kMostCells);
  const Scale scale{static_cast<double>(label_width + 1) / cell};
  const std::size_t width = scale.column(simulation.makespan);

  std::string text;
  for (std::size_t rank = 0; rank < simulation.timeline.size(); ++rank) {
    text +=
        fmt::format("rank {} |{}|\n", rank, draw_line(simulation.timeline[rank], scale, width, with_chunk));
  }
  return text;
}

}  // namespace llama3d
