#include "comm/health/hang_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <sstream>
#include <vector>

namespace llama3d {
namespace {

/// Up to so many ranks have a line each.
constexpr std::size_t few_ranks = 16;
/// More of anything make a line, or the report, too long to read.
constexpr std::size_t most_hosts = 4, most_stretches = 16, most_lines = 64;

/// Ranks in the same state.
struct Group {
  std::vector<std::size_t> ranks;
  std::optional<RankState> state;  ///< of the first
  double least = 0, most = 0;      ///< seconds waited
};

bool same(const std::optional<RankState>& a, const std::optional<RankState>& b) {
  if (!a || !b) return !a && !b;
  return a->label == b->label && a->position.step == b->position.step &&
         a->position.micro_batch == b->position.micro_batch && a->failure == b->failure &&
         a->phase == b->phase;
}

/// In the order of their first ranks.
std::vector<Group> groups_of(std::span<const std::optional<RankState>> states) {
  std::vector<Group> groups;
  for (std::size_t rank = 0; rank < states.size(); ++rank) {
    const auto& state = states[rank];
    const double seconds = state ? state->seconds : 0;
    auto group = states.size() <= few_ranks
                     ? groups.end()
                     : std::find_if(groups.begin(), groups.end(),
                                    [&](const Group& known) { return same(known.state, state); });
    if (group == groups.end()) group = groups.insert(group, {{}, state, seconds, seconds});
    group->ranks.push_back(rank);
    group->least = std::min(group->least, seconds);
    group->most = std::max(group->most, seconds);
  }
  return groups;
}

/// "rank 3", "ranks 0-3, 8".
std::string names(const std::vector<std::size_t>& ranks) {
  std::vector<std::string> stretches;
  for (std::size_t first = 0, last = 0; first < ranks.size(); first = ++last) {
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    stretches.push_back(first == last ? fmt::format("{}", ranks[first])
                                      : fmt::format("{}-{}", ranks[first], ranks[last]));
  }
  const bool cut = stretches.size() > most_stretches;
  if (cut) stretches.resize(most_stretches);
  return fmt::format("rank{} {}{}", ranks.size() == 1 ? "" : "s", fmt::join(stretches, ", "),
                     cut ? fmt::format(", ... ({} in all)", ranks.size()) : "");
}

std::string places(const std::vector<std::size_t>& ranks, std::span<const std::string> hosts) {
  std::set<std::string> all;
  for (const std::size_t rank : ranks) all.insert(hosts[rank]);
  if (all.size() > most_hosts) return fmt::format("{} hosts", all.size());
  return fmt::format("host{} {}", all.size() == 1 ? "" : "s", fmt::join(all, ", "));
}

std::string action(const Group& group) {
  const RankState& state = *group.state;
  if (state.label.empty()) return "in no communication (computing, or busy with files)";
  const auto since = fmt::format("{:.1f}", group.least), longest = fmt::format("{:.1f}", group.most);
  return fmt::format("wait{} in {} since {} s", group.ranks.size() == 1 ? "s" : "", state.label,
                     since == longest ? since : since + " to " + longest);
}

}  // namespace

std::string RankState::encode() const {
  return fmt::format("{} {} {} {}\n{}\n{}", seconds, position.step, position.micro_batch, label, phase,
                     failure);
}

RankState RankState::decode(const std::string& text) {
  std::istringstream in(text);
  RankState state;
  in >> state.seconds >> state.position.step >> state.position.micro_batch;
  in.get();
  std::getline(in, state.label);
  std::getline(in, state.phase);
  std::getline(in, state.failure);
  return state;
}

std::string to_text(RunPosition position) {
  std::string text = position.step > 0 ? fmt::format("step {}", position.step) : "";
  if (position.micro_batch >= 0)
    text += fmt::format("{}micro-batch {}", text.empty() ? "" : ", ", position.micro_batch);
  return text.empty() ? "before the first step" : text;
}

std::string hang_report(const std::string& headline, std::span<const std::string> hosts,
                        std::span<const std::optional<RankState>> states, int own) {
  bool alone = states.size() > 2;
  for (std::size_t rank = 0; rank < states.size(); ++rank)
    if (states[rank] && static_cast<int>(rank) != own) alone = false;
  std::string report = headline + "\n";
  std::size_t lines = 0, left_out = 0;
  for (const Group& group : groups_of(states)) {
    const auto who = fmt::format("  {} ({}): ", names(group.ranks), places(group.ranks, hosts));
    if (!group.state) {
      report += who + (alone ? "no answer\n"
                             : "no answer (stopped, dead or cut off: usually what the others wait for)\n");
      continue;
    }
    if (++lines > most_lines) {
      ++left_out;
      continue;
    }
    report += fmt::format("{}{}, {}", who, action(group), to_text(group.state->position));
    if (!group.state->phase.empty()) report += ", " + group.state->phase;
    if (!group.state->failure.empty()) report += "; " + group.state->failure;
    report += "\n";
  }
  if (left_out > 0) report += fmt::format("  ... and ranks in {} other states\n", left_out);
  if (alone)
    report += "  No rank answered: UDP between them may be blocked, and any of them be what is missing.\n";
  return report;
}

}  // namespace llama3d
