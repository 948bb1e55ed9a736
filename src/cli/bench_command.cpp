#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/bytes.hpp"
#include "base/output.hpp"
#include "base/printable.hpp"
#include "base/version.hpp"
#include "bench/bench.hpp"
#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "cli/parsed_line.hpp"
#include "cli/train_options.hpp"
#include "comm/failure.hpp"
#include "options/agreement.hpp"
#include "train/run_shape.hpp"

namespace llama3d {
namespace {

constexpr std::array<std::string_view, 4> what_words = {"kernels", "gemm", "attention", "step"};

struct BenchCommand {
  std::string what;
  TrainSettings settings;
  MachineOptions machine;
  BenchOptions options;
  int steps = 5;
  std::string output = "bench.h5";
  CommandLine line{"bench", "Time kernels, gemm, attention or step: llama3d bench WHAT [options]."};

  BenchCommand() {
    settings.model = "llama3-tiny";
    line.add_settings(settings);
    add_machine_options(line, machine);
    line.add("repeats", options.repeats);
    line.add("warmup", options.warmup);
    line.add("steps", steps);
    line.add("output", output);
  }
};

void check(const BenchCommand& command) {
  if (std::find(what_words.begin(), what_words.end(), command.what) == what_words.end())
    throw ConfigurationError(
        fmt::format("bench {}: unknown; use {}", command.what, fmt::join(what_words, ", ")));
  for (const auto& [option, value, least] : {std::tuple{"repeats", command.options.repeats, 1},
                                             {"warmup", command.options.warmup, 0},
                                             {"steps", command.steps, 1}})
    if (value < least)
      throw ConfigurationError(fmt::format("--{} {}: must be at least {}", option, value, least));
  if (command.what != "step") command.line.refuse_idle({"steps"}, "it is for bench step");
}

std::string rate_text(const BenchRow& row) {
  if (row.unit == "FLOP") return fmt::format("{:9.1f} TFLOP/s", row.rate * 1e-12);
  if (row.unit == "byte") return fmt::format("{:9.1f} GB/s", row.rate * 1e-9);
  return fmt::format("{:9.0f} tokens/s", row.rate);
}

void print_row(const BenchRow& row) {
  print_result("{:<28} {:<34} {:<24} {:10.4f} ms {:<18} {:6.1f}%\n", row.name, row.shape, row.dtype,
               row.seconds * 1e3, rate_text(row), row.fraction * 100);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// What each label moved and took a step on this rank, and how much of it computing hid.
void print_communication(const StepBench& result) {
  const auto steps = static_cast<double>(result.step_seconds.size());
  print_result("{:<28} {:>8} {:>12} {:>12} {:>12} {:>8}\n", "communication a step, rank 0", "calls", "bytes",
               "ms", "exposed ms", "hidden");
  for (const auto& [label, record] : result.communication) {
    if (record.calls == 0 || record.seconds == 0) continue;
    print_result("{:<28} {:>8.0f} {:>12} {:>12.3f} {:>12.3f} {:>7.1f}%\n", label.name,
                 static_cast<double>(record.calls) / steps,
                 format_bytes(static_cast<std::size_t>(static_cast<double>(record.bytes) / steps)),
                 record.seconds / steps * 1e3, record.exposed_seconds / steps * 1e3,
                 100 * std::max(0.0, 1 - record.exposed_seconds / record.seconds));
  }
}

/// Whole steps, against the time their GEMMs and attention would take alone.
void bench_whole_steps(const BenchCommand& command, const RunShape& run, Runtime& runtime,
                       const BenchSink& sink) {
  const bool leader = runtime.control.rank() == 0;
  check_fits(run, runtime.device.kernels(), DeviceCapacity::of(runtime.device));
  double gemms = 0, attention = 0;
  {
    Laboratory lab(runtime.device, command.options);
    const auto ignore = [](const BenchRow&) {};
    gemms = bench_gemms(lab, run, ignore);
    attention = bench_attention(lab, run, ignore);
  }
  const StepBench result = bench_steps(run, runtime, command.options.warmup, command.steps);
  if (!leader) return;
  const auto tokens = static_cast<double>(run.global_batch() * run.seq_length);
  BenchRow row;
  row.group = "step";
  row.name = run.model.name;
  row.shape = fmt::format("{}, micro-batch {} x {}, {} accumulated", run.grid.to_string(),
                          run.micro_batch_size, run.seq_length, run.micro_batches());
  row.dtype = fmt::format("{} {} {}{}", run.precision->name, name_of(run.gradient_dtype),
                          name_of(run.optimizer_dtype),
                          run.compute() == DType::bf16 && run.master_weights ? " +master" : "");
  row.seconds = median(result.step_seconds);
  row.work = tokens;
  row.unit = "token";
  row.rate = tokens / row.seconds;
  row.ceiling = static_cast<double>(run.micro_batch_size * run.seq_length) * run.grid.size(Axis::data) /
                (gemms + attention) * run.grid.size(Axis::pipeline);
  row.fraction = row.rate / row.ceiling;
  sink(row);
  const double per_gpu = row.rate / run.grid.world();
  const auto peak = runtime.device.peak_flops(run.compute());
  print_result("a micro-batch: GEMMs {:.2f} ms, attention {:.2f} ms; their limit {:.0f} tokens/s\n",
               gemms * 1e3, attention * 1e3, row.ceiling);
  print_result("{:.0f} tokens/s/rank", per_gpu);
  if (peak)
    print_result(", MFU {:.1f}% of {:.1f} TFLOP/s ({})",
                 per_gpu * run.model.training_flops_per_token(run.seq_length) / *peak * 100, *peak * 1e-12,
                 runtime.device.peak_source());
  print_result("\nmemory: planned {}, in use {}\n", format_bytes(result.planned_bytes),
               format_bytes(result.used_bytes));
  if (run.grid.size(Axis::tensor) > 1)
    print_result("tensor-parallel overlap: {}\n", result.overlap.to_string());
  if (run.grid.world() > 1) print_communication(result);
}

int run(const Job& job, BenchCommand& command, const ParsedLine& parsed) {
  ControlPlane& control = job.control;
  auto outcome = CommandLine::Outcome::run;
  RunShape shape;
  fail_together(control, [&] {
    outcome = parsed.outcome();
    if (outcome == CommandLine::Outcome::help) return;
    check(command);
    refuse_idle_shape_options(command.line, command.settings);
    check_settings(command.settings, command.line.command());
    shape = run_shape(command.settings, load_model_config(command.settings.model), control.size());
    shape.micro_batches();
  });
  const bool leader = control.rank() == 0;
  if (outcome == CommandLine::Outcome::help) {
    if (leader) write_result(command.line.help());
    return 0;
  }
  expect_same_options(command.line.command(), command.line.resolved_json(), control);
  fail_together(control, [&] {
    if (leader) check_bench_file(command.output);
  });
  const auto device = make_job_device(command.machine, control);
  if (leader) print_result("llama3d {}: {} on {}\n", version(), printable(shape.model.name), device->name());
  std::vector<BenchRow> rows;
  const BenchSink sink = [&](const BenchRow& row) {
    rows.push_back(row);
    if (leader) print_row(row);
  };
  if (command.what == "step") {
    Runtime runtime = make_runtime(job, *device, command.machine);
    bench_whole_steps(command, shape, runtime, sink);
  } else {
    Laboratory lab(*device, command.options);
    if (command.what == "kernels") bench_kernels(lab, shape, sink);
    if (command.what == "gemm") bench_gemms(lab, shape, sink);
    if (command.what == "attention") bench_attention(lab, shape, sink);
  }
  if (leader) {
    write_bench_file(command.output, rows,
                     {{"device", device->name()},
                      {"model", shape.model.name},
                      {"version", version()},
                      {"git_revision", git_revision()},
                      {"configuration", command.line.resolved_json()}});
    print_result("written to {}\n", printable(command.output));
  }
  return 0;
}

}  // namespace

int bench_command(int argc, char** argv) {
  BenchCommand command;
  // The first word says what to time; the rest are options.
  const bool named = argc > 1 && argv[1][0] != '-';
  if (named) command.what = argv[1];
  const ParsedLine parsed(command.line, named ? argc - 1 : argc, named ? argv + 1 : argv);
  return run_job(argc, argv, command.settings.comm_timeout,
                 [&](const Job& job) { return run(job, command, parsed); });
}

}  // namespace llama3d
