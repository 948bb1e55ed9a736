#include <fmt/format.h>

#include <stdexcept>

#include "base/model_folder.hpp"
#include "base/output.hpp"
#include "base/printable.hpp"
#include "base/utf8.hpp"
#include "checkpoint/tokenizer_files.hpp"
#include "checkpoint/weight_tokenizer.hpp"
#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "cli/parsed_line.hpp"
#include "cli/progress_line.hpp"
#include "cli/train_options.hpp"
#include "comm/failure.hpp"
#include "data/chat_template.hpp"
#include "generate/predictions.hpp"
#include "io/posix/output_check.hpp"
#include "options/agreement.hpp"

namespace llama3d {
namespace {

struct GenerateCommand {
  GenerationSettings settings;
  MachineOptions machine;
  std::string tokenizer, prompt, prompt_file, system, data, output;
  bool chat = false;
  InputFormat format = InputFormat::automatic;
  std::int64_t max_samples = 0;
  std::vector<std::string> stops;
  double comm_timeout = TrainSettings().comm_timeout;
  CommandLine line{"generate", "Continue a prompt, answer a message, or answer a file of questions."};

  GenerateCommand() {
    DecodingOptions& d = settings.decoding;
    line.add("load", settings.load);
    line.add("model", settings.model);
    line.add("tokenizer", tokenizer);
    line.add("prompt", prompt);
    line.add("prompt-file", prompt_file);
    line.add("chat", chat);
    line.add("system", system);
    line.add("data", data);
    line.add_word("format", format, input_format_from, word_of);
    line.add("max-samples", max_samples);
    line.add("output", output);
    line.add("batch-size", settings.batch_size);
    line.add("max-new-tokens", d.max_new_tokens);
    line.add("temperature", d.sampling.temperature);
    line.add("top-k", d.sampling.top_k);
    line.add("top-p", d.sampling.top_p);
    line.add("seed", d.sampling.seed);
    line.add("stop", stops);
    line.add("tp-size", settings.tp_size);
    line.add("pp-size", settings.pp_size);
    line.add_word("precision", WordValue{[this](std::string_view word) {
                                           settings.precision = read_precision("precision", word);
                                         },
                                         [this] { return std::string(settings.precision->name); }});
    add_machine_options(line, machine);
    line.add("comm-timeout", comm_timeout);
  }
};

/// Refuses what the options ask for together. `option` is one of them, whose origin is told.
[[noreturn]] void refuse(const GenerateCommand& c, const char* option, const char* why) {
  throw ConfigurationError(fmt::format("--{}{}: {}", option, c.line.origin_note(option), why));
}

/// Exactly one option says what to answer.
void check_question(const GenerateCommand& c) {
  std::vector<std::string> given;
  for (const char* option : {"prompt", "prompt-file", "data"})
    if (c.line.given(option)) given.push_back(fmt::format("--{}{}", option, c.line.origin_note(option)));
  if (given.size() != 1)
    throw ConfigurationError(
        fmt::format("generate takes one of --prompt TEXT, --prompt-file FILE and --data FILE.json; {} given",
                    given.empty() ? "none is" : fmt::format("{} are", fmt::join(given, " and "))));
}

void check_options(const GenerateCommand& c, int ranks) {
  check_settings(c.settings);
  check_comm_timeout(c.comm_timeout);
  c.line.expect_utf8({"prompt", "system", "stop"});
  check_question(c);
  const auto given = [&](const char* option) { return c.line.given(option); };
  if (given("system") && !c.chat)
    refuse(c, "system", "a system message is for --chat; put it into the prompt instead");
  if (given("data")) {
    if (c.chat) refuse(c, "chat", "--data's records are conversations already; leave it out");
    if (c.output.empty())
      throw ConfigurationError(
          fmt::format("--output: no file for the answers to --data{} given", c.line.origin_note("data")));
    ProcessGrid::derive(ranks, {.tp = c.settings.tp_size}, 0);  // throws what is wrong with it
    if (c.max_samples < 0)
      throw ConfigurationError(fmt::format("--max-samples {}: must be 0 (all) or more", c.max_samples));
    return;
  }
  for (const char* option : {"output", "format", "max-samples", "batch-size"})
    if (given(option)) refuse(c, option, "is for --data; a single prompt has no use for it");
  if (c.settings.tp_size != ranks)
    throw ConfigurationError(
        fmt::format("--tp-size {}: {} rank{} started, and one prompt is for one group of them; start as many "
                    "as --tp-size",
                    c.settings.tp_size, ranks, ranks == 1 ? " was" : "s were"));
}

std::string read_prompt_file(const std::string& path) {
  constexpr std::uintmax_t longest = 100'000'000;
  const auto refuse = [&](const std::string& reason) {
    throw DataError(
        fmt::format("--prompt-file {}: no text that can be used ({}); give a text file", path, reason));
  };
  std::string text;
  try {
    text = read_file(path, longest);
  } catch (const std::runtime_error& problem) {
    refuse(problem.what());
  }
  if (find_invalid_utf8(text) != std::string::npos) refuse("it is no UTF-8");
  return text;
}

/// As make_tokenizer() takes it.
std::string tokenizer_of(const GenerateCommand& command, const WeightSource& weights) {
  if (!command.tokenizer.empty()) return command.tokenizer;
  const std::string found = find_tokenizer(weights).tokenizer;
  if (!found.empty()) return found;
  throw ConfigurationError(
      fmt::format("--tokenizer: not given, and there is none in {}; give {}", command.settings.load,
                  weights.tokenizer().known()
                      ? "the " + weights.tokenizer().to_string() + " that its training tokens were made with"
                      : "bytes, a tokenizer.model, a tokenizer.json or a folder with one"));
}

std::vector<std::uint32_t> prompt_tokens(const GenerateCommand& c, const Tokenizer& tokenizer) {
  const std::string text = c.prompt_file.empty() ? c.prompt : read_prompt_file(c.prompt_file);
  if (c.chat) {
    Conversation conversation;
    if (!c.system.empty()) conversation.push_back({Role::system, c.system});
    conversation.push_back({Role::user, text});
    return render_chat(conversation, tokenizer, true).tokens;
  }
  std::vector<std::uint32_t> tokens;
  tokenizer.encode(text, tokens, {.special_tokens = true, .invalid_utf8 = InvalidUtf8::error});
  if (tokens.empty() || tokens.front() != tokenizer.begin_of_text())
    tokens.insert(tokens.begin(), tokenizer.begin_of_text());
  return tokens;
}

void print_doubts(const GenerateCommand& c, const Tokenizer& tokenizer, const WeightSource& weights,
                  const ModelConfig& model) {
  std::vector<std::string> lines = model_doubts(weights, model);
  lines.push_back(tokenizer_doubt(weights, "the tokenizer is", {{tokenizer.name(), tokenizer.file_hash()}}));
  // Training here, which makes checkpoints, renders conversations the same way.
  if ((c.chat || !c.data.empty()) && !weights.is_checkpoint() && has_other_chat_template(weights.folder()))
    lines.push_back(
        fmt::format("messages are written as Llama 3's chat template has them, that of {} is another",
                    weights.folder().string()));
  for (const std::string& line : lines)
    if (!line.empty()) print_log("warning: {}\n", printable(line, 4000));
}

void expect_fitting(const Tokenizer& tokenizer, const ModelConfig& model) {
  if (tokenizer.vocabulary_size() > model.vocabulary)
    throw ConfigurationError(
        fmt::format("--tokenizer {}: has {} tokens, the model {}; give the one the model was trained with",
                    tokenizer.name(), tokenizer.vocabulary_size(), model.vocabulary));
}

void print_report(const GenerationReport& r) {
  const auto rate = [](std::int64_t tokens, double seconds) {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
  };
  print_log("prompt: {} tokens, {:.1f} tokens/s; generated: {} tokens, {:.1f} tokens/s after the first\n",
            r.prompt_tokens, rate(r.prompt_tokens, r.prompt_seconds), r.new_tokens,
            rate(r.decoded_tokens, r.decode_seconds));
}

/// What the answers are made with and from.
struct Texts {
  std::unique_ptr<WeightSource> weights;
  std::unique_ptr<Tokenizer> tokenizer;
  StopRules rules;
  std::vector<std::uint32_t> prompt;
  PromptRecords records;
};

/// Those whose question takes all of the model's positions count as bad.
void leave_out_long_records(PromptRecords& all, const Tokenizer& tokenizer, std::int64_t positions) {
  std::string first;
  std::erase_if(all.records, [&](const PromptRecord& record) {
    const std::int64_t length = std::ssize(render_chat(record.prompt, tokenizer, true).tokens);
    if (length < positions) return false;
    const std::string reason =
        fmt::format("takes {} tokens and leaves no room for an answer (the model has positions for {})",
                    length, positions);
    if (first.empty()) first = fmt::format("{}: {}", record.place, reason);
    all.leave_out(record.place, reason);
    return true;
  });
  if (!first.empty() && all.records.empty()) throw DataError(first + ", and so for all; shorten them");
}

Texts read_texts(GenerateCommand& c, bool leader) {
  auto weights = open_weights(c.settings.load);
  const ModelConfig model = model_of(c.settings, *weights);
  const std::string tokenizer = tokenizer_of(c, *weights);
  if (!c.output.empty()) expect_no_input(c.output, {c.data, tokenizer_file(tokenizer)});
  Texts texts;
  texts.tokenizer = make_tokenizer(tokenizer);
  expect_fitting(*texts.tokenizer, model);
  if (leader) print_doubts(c, *texts.tokenizer, *weights, model);
  c.settings.decoding.vocabulary = texts.tokenizer->vocabulary_size();
  texts.rules = StopRules::of(*texts.tokenizer, c.stops);
  const auto ends = left_for_bytes(*weights) ? std::set<std::int64_t>() : weights->origin().end_tokens();
  for (const std::int64_t token : ends)
    if (token >= 0 && token < model.vocabulary) texts.rules.tokens.insert(static_cast<std::uint32_t>(token));
  if (c.data.empty()) {
    texts.prompt = prompt_tokens(c, *texts.tokenizer);
  } else {
    texts.records = read_prompt_records(c.data, c.format, c.max_samples);
    leave_out_long_records(texts.records, *texts.tokenizer, model.max_positions);
  }
  texts.weights = std::move(weights);
  return texts;
}

/// Continues the prompt on the terminal.
void stream(const GenerateCommand& command, const Texts& texts, Runtime& runtime) {
  GeneratedText text(*texts.tokenizer, texts.rules);
  const auto show = [](const std::string& piece) {
    write_result(piece);
    flush_results();
  };
  const auto append = [&](const GenerationRequest&, std::uint32_t token) {
    const bool ended = text.append(token);
    show(text.take());
    return ended;
  };
  const auto finish = [&](const GenerationRequest&) { show(text.take_rest() + "\n"); };
  const GenerationReport report =
      generate(command.settings, *texts.weights, {texts.prompt}, runtime, {append, finish});
  if (runtime.control.rank() == 0) print_report(report);
}

/// Answers the records, to a file.
void answer(const GenerateCommand& command, const Texts& texts, Runtime& runtime) {
  const bool leader = runtime.control.rank() == 0;
  const PromptRecords& all = texts.records;
  if (leader && all.bad > 0) {
    print_log("warning: {} bad record{} left out, first:\n", all.bad, all.bad == 1 ? "" : "s");
    for (const std::string& bad : all.first_bad) print_log("  {}\n", printable(bad, 4000));
  }
  ProgressLine line;
  const auto show = [&line](const PredictionProgress& p) {
    if (line.due())
      line.show(fmt::format("{}/{} records, {:.1f} tokens/s", p.done, p.total,
                            static_cast<double>(p.new_tokens) / line.seconds()));
  };
  const GenerationReport report = predict(command.settings, *texts.weights, all.records, *texts.tokenizer,
                                          texts.rules, command.output, runtime, show);
  if (!leader) return;
  line.clear();
  print_report(report);
  print_result("{}: {} answers; tools/score_predictions.py prints BLEU-4 and ROUGE of them\n",
               printable(command.output), all.records.size());
}

int run(const Job& job, GenerateCommand& command, const ParsedLine& parsed) {
  ControlPlane& control = job.control;
  auto outcome = CommandLine::Outcome::run;
  fail_together(control, [&] {
    outcome = parsed.outcome();
    if (outcome != CommandLine::Outcome::help) check_options(command, control.size());
  });
  if (outcome == CommandLine::Outcome::help) {
    if (control.rank() == 0) write_result(command.line.help());
    return 0;
  }
  expect_same_options(command.line.command(), command.line.resolved_json(), control);
  Texts texts;
  fail_together(control, [&] { texts = read_texts(command, control.rank() == 0); });
  const auto device = make_job_device(command.machine, control);
  Runtime runtime = make_runtime(job, *device, command.machine);
  if (command.data.empty())
    stream(command, texts, runtime);
  else
    answer(command, texts, runtime);
  return 0;
}

}  // namespace

int generate_command(int argc, char** argv) {
  GenerateCommand command;
  const ParsedLine parsed(command.line, argc, argv);
  return run_job(argc, argv, command.comm_timeout, [&](const Job& job) { return run(job, command, parsed); });
}

}  // namespace llama3d
