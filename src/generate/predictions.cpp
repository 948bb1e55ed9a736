#include "generate/predictions.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/json.hpp"
#include "base/utf8.hpp"
#include "data/chat_template.hpp"
#include "io/posix/whole_file.hpp"

namespace llama3d {
namespace {

/// The sum over the job's replicas of the tokens; the longest time.
GenerationReport total_of(ControlPlane& control, const GenerationReport& own, bool counts) {
  const nlohmann::json mine = {counts ? own.prompt_tokens : 0, counts ? own.new_tokens : 0,
                               counts ? own.decoded_tokens : 0, own.prompt_seconds, own.decode_seconds};
  GenerationReport total;
  for (const std::string& text : control.all_gather(mine.dump())) {
    const auto rank = parse_json(text);
    total.prompt_tokens += rank[0].get<std::int64_t>();
    total.new_tokens += rank[1].get<std::int64_t>();
    total.decoded_tokens += rank[2].get<std::int64_t>();
    total.prompt_seconds = std::max(total.prompt_seconds, rank[3].get<double>());
    total.decode_seconds = std::max(total.decode_seconds, rank[4].get<double>());
  }
  return total;
}

/// The texts of all ranks by their number, on every rank.
std::vector<std::string> gather_texts(ControlPlane& control, const std::map<std::uint64_t, std::string>& own,
                                      std::size_t count) {
  nlohmann::json mine = nlohmann::json::array();
  for (const auto& [number, text] : own) mine.push_back({number, text});
  std::vector<std::string> texts(count);
  const JsonLimits own_text{.values = std::numeric_limits<std::size_t>::max()};
  for (const std::string& rank : control.all_gather(mine.dump()))
    for (const auto& entry : parse_json(rank, own_text))
      texts[entry[0].get<std::size_t>()] = entry[1].get<std::string>();
  return texts;
}

}  // namespace

GenerationReport predict(const GenerationSettings& settings, const WeightSource& weights,
                         const std::vector<PromptRecord>& records, const Tokenizer& tokenizer,
                         const StopRules& rules, const std::filesystem::path& output, Runtime& runtime,
                         const std::function<void(const PredictionProgress&)>& progress) {
  ControlPlane& control = runtime.control;
  std::optional<WholeFileWriter> file;
  std::vector<std::vector<std::uint32_t>> prompts;
  fail_together(control, [&] {
    if (control.rank() == 0) file.emplace(output);
    for (const PromptRecord& record : records)
      prompts.push_back(render_chat(record.prompt, tokenizer, true).tokens);
  });

  const std::size_t replicas = static_cast<std::size_t>(control.size() / settings.tp_size);
  PredictionProgress state{};
  state.total = static_cast<std::int64_t>((records.size() + replicas - 1) / replicas);
  std::map<std::uint64_t, GeneratedText> under_way;
  std::map<std::uint64_t, std::string> texts;
  const auto append = [&](const GenerationRequest& request, std::uint32_t token) {
    GeneratedText& text = under_way.try_emplace(request.number, tokenizer, rules).first->second;
    const bool ended = text.append(token);
    texts[request.number] += text.take();
    ++state.new_tokens;
    if (progress && control.rank() == 0) progress(state);
    return ended;
  };
  const auto finish = [&](const GenerationRequest& request) {
    texts[request.number] += under_way.at(request.number).take_rest();
    under_way.erase(request.number);
    ++state.done;
  };
  const GenerationReport report = generate(settings, weights, prompts, runtime, {append, finish});

  const auto answers = gather_texts(control, texts, records.size());
  fail_together(control, [&] {
    if (!file) return;
    for (std::size_t i = 0; i < records.size(); ++i) {
      // Keys as LLaMA-Factory orders them.
      nlohmann::ordered_json line;
      line["prompt"] = replace_invalid_utf8(tokenizer.transcript(prompts[i]));
      line["predict"] = answers[i];
      line["label"] = records[i].label;
      file->append(line.dump() + "\n");
    }
    file->finish();
  });
  return total_of(control, report, control.rank() % settings.tp_size == 0);
}

}  // namespace llama3d
