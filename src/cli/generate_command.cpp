#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iterator>

#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "cli/same_options.hpp"
#include "cli/train_options.hpp"
#include "data/generated_text.hpp"
#include "mpi/failure.hpp"
#include "train/generation.hpp"

namespace llama3d {
namespace {

struct GenerateCommand {
  GenerationSettings settings;
  MachineOptions machine;
  std::string tokenizer, prompt, prompt_file;
  std::vector<std::string> stops;
  double comm_timeout = 600;
  CommandLine line{"generate", "Continue a prompt with a model, token by token."};

  GenerateCommand() {
    DecodingOptions& d = settings.decoding;
    line.add("load", settings.load, "checkpoint or Hugging Face folder to generate with");
    line.add("model", settings.model,
             "preset, config.json or Hugging Face folder; that of --load if not given");
    line.add(
        "tokenizer", tokenizer,
        "bytes, or Llama 3's tokenizer.model, tokenizer.json or a folder with one; --load's if not given");
    line.add("prompt", prompt, "text to continue; names of special tokens in it are those tokens");
    line.add("prompt-file", prompt_file, "file with the text instead");
    line.add("max-new-tokens", d.max_new_tokens, "most tokens of an answer");
    line.add("temperature", d.sampling.temperature, "of sampling; 0: always the likeliest token");
    line.add("top-k", d.sampling.top_k, "sample from the so many likeliest tokens only; 0: all");
    line.add("top-p", d.sampling.top_p,
             "sample from the likeliest tokens that together have this probability");
    line.add("seed", d.sampling.seed, "of sampling");
    line.add("stop", stops,
             "texts or special tokens to end at, beside end of text and <|eot_id|>; may be repeated");
    line.add("tp-size", settings.tp_size, "tensor-parallel ranks: every layer is split over so many");
    line.add("pp-size", settings.pp_size, "1: generation has no pipeline stages");
    add_precision_option(line, settings.precision);
    add_machine_options(line, machine);
    add_job_options(line, comm_timeout);
  }
};

std::string read_prompt_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file)
    throw DataError(fmt::format("--prompt-file {}: no file that can be read; give a text file", path));
  return text;
}

std::unique_ptr<Tokenizer> open_tokenizer(const GenerateCommand& command) {
  if (!command.tokenizer.empty()) return make_tokenizer(command.tokenizer);
  for (const char* name : {"tokenizer.json", "tokenizer.model"})
    if (std::filesystem::exists(std::filesystem::path(command.settings.load) / name))
      return make_tokenizer(command.settings.load);
  throw ConfigurationError(fmt::format(
      "--tokenizer: not given, and there is none in {}; give bytes, a tokenizer.model, a tokenizer.json or a "
      "folder with one",
      command.settings.load));
}

/// The prompt's tokens, behind begin of text.
std::vector<std::uint32_t> prompt_tokens(const GenerateCommand& command, const Tokenizer& tokenizer) {
  const bool from_file = !command.prompt_file.empty();
  if (from_file && !command.prompt.empty())
    throw ConfigurationError("--prompt and --prompt-file: give one of them");
  const std::string text = from_file ? read_prompt_file(command.prompt_file) : command.prompt;
  std::vector<std::uint32_t> encoded;
  tokenizer.encode(text, encoded, {.special_tokens = true, .invalid_utf8 = InvalidUtf8::error});
  if (encoded.empty() || encoded.front() != tokenizer.begin_of_text())
    encoded.insert(encoded.begin(), tokenizer.begin_of_text());
  return encoded;
}

void expect_fitting(const Tokenizer& tokenizer, const GenerationSettings& settings) {
  const ModelConfig model = model_of(settings);
  if (tokenizer.vocabulary_size() > model.vocabulary)
    throw ConfigurationError(
        fmt::format("--tokenizer {}: has {} tokens, the model {}; give the one the model was trained with",
                    tokenizer.name(), tokenizer.vocabulary_size(), model.vocabulary));
}

void print_report(const GenerationReport& r) {
  const auto rate = [](std::int64_t tokens, double seconds) {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
  };
  fmt::print(stderr,
             "prompt: {} tokens, {:.1f} tokens/s; generated: {} tokens, {:.1f} tokens/s after the first\n",
             r.prompt_tokens, rate(r.prompt_tokens, r.prompt_seconds), r.new_tokens,
             rate(r.decoded_tokens, r.decode_seconds));
}

/// Continues the prompt on the terminal.
int stream(GenerateCommand& command, const Tokenizer& tokenizer, const StopRules& rules,
           std::vector<std::uint32_t> prompt, Runtime& runtime) {
  GeneratedText text(tokenizer, rules);
  const auto show = [](const std::string& piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  };
  const GenerationReport report = generate(command.settings, {std::move(prompt)}, runtime,
                                           [&](const GenerationRequest&, std::uint32_t token) {
                                             const bool ended = text.append(token);
                                             show(text.take());
                                             return ended;
                                           });
  if (runtime.control.rank() != 0) return 0;
  show(text.take_rest() + "\n");
  print_report(report);
  return 0;
}

int run(MpiSession& session, int argc, char** argv) {
  ControlPlane& control = session.control();
  GenerateCommand command;
  auto outcome = CommandLine::Outcome::run;
  fail_together(control, [&] {
    outcome = command.line.parse(argc, argv);
    if (outcome == CommandLine::Outcome::help) return;
    check_settings(command.settings);
    if (command.settings.tp_size != control.size())
      throw ConfigurationError(fmt::format(
          "--tp-size {}: {} ranks were started, and one prompt is for one group of them; start as "
          "many ranks as --tp-size",
          command.settings.tp_size, control.size()));
  });
  if (outcome == CommandLine::Outcome::help) {
    if (control.rank() == 0) fmt::print("{}", command.line.help());
    return 0;
  }
  expect_same_options(command.line, control);
  std::unique_ptr<Tokenizer> tokenizer;
  StopRules rules;
  std::vector<std::uint32_t> prompt;
  fail_together(control, [&] {
    tokenizer = open_tokenizer(command);
    expect_fitting(*tokenizer, command.settings);
    command.settings.decoding.vocabulary = tokenizer->vocabulary_size();
    rules = StopRules::of(*tokenizer, command.stops);
    prompt = prompt_tokens(command, *tokenizer);
  });
  const auto device = make_job_device(command.machine, control);
  Runtime runtime = make_runtime(session, *device, command.machine, command.comm_timeout);
  return stream(command, *tokenizer, rules, std::move(prompt), runtime);
}

}  // namespace

int generate_command(int argc, char** argv) {
  return run_job(argc, argv, [&](MpiSession& session) { return run(session, argc, argv); });
}

}  // namespace llama3d
