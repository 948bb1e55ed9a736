// Writes files for foreign_readers.py:
//   sample_writer samples FOLDER   FOLDER/checkpoint, FOLDER/tokens.h5
//   sample_writer live FILE        a metrics file that grows until the process is killed; prints each flushed
//   step
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

#include "io/checkpoint_samples.hpp"
#include "io/metrics/metrics_file.hpp"
#include "io/tokens/token_file.hpp"

using namespace llama3d;

namespace {

void write_samples(const std::filesystem::path& folder) {
  test::write_sample(
      folder / "checkpoint", 3, 5,
      R"({"step": 100, "learning_rate": 0.25, "config": "[model]\nlayers = 2", "grid": {"tp": 2}})");
  // Each element as text, for the script to compare with.
  for (const auto& tensor : test::sample_tensors()) {
    const Rectangle all = whole(tensor.shape);
    fmt::print("{}", tensor.dataset);
    for (std::int64_t row = 0; row < all.rows(); ++row) {
      for (std::int64_t column = 0; column < all.columns(); ++column) {
        fmt::print(" {}", test::sample_value(tensor, row, column));
      }
    }
    fmt::print("\n");
  }
  TokenFileWriter tokens(folder / "tokens.h5", {"bytes", 259, "sample_writer", true});
  tokens.append_document(std::vector<std::uint32_t>{256, 72, 105, 257},
                         std::vector<std::uint8_t>{0, 1, 1, 1});
  tokens.append_document(std::vector<std::uint32_t>(100000, 65), std::vector<std::uint8_t>(100000, 1));
  tokens.finish();
}

void write_live(const std::filesystem::path& path) {
  MetricsFile file(path);
  file.set_run_attribute("command", "llama3d train --steps 1000");
  file.append(make_event(0, 0, "resume", "gr\xc3\xbc\xc3\x9f dich"));
  TrainRow row;
  for (;; ++row.step) {
    row.loss = 1.0 / static_cast<double>(row.step + 1);
    row.tokens = row.step * 10;
    file.append(row);
    fmt::print("{}\n", row.step);
    std::fflush(stdout);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  if (std::string(argv[1]) == "samples") write_samples(argv[2]);
  if (std::string(argv[1]) == "live") write_live(argv[2]);
  return 0;
}
