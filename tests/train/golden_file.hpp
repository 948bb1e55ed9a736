#pragma once
// Reads what tests/golden/make_golden.py wrote; its README describes the layout.

#include <string>

#include "train/test_run.hpp"

namespace llama3d::test {

/// The folder of the golden files.
std::string golden_directory();

class GoldenFile {
 public:
  /// `name` of a file in tests/golden.
  explicit GoldenFile(const std::string& name);
  ~GoldenFile();

  ModelConfig config() const;
  /// The batch of a forward and backward pass; `group` "" or "packed".
  GlobalBatch batch(const std::string& group) const;
  /// Batch of optimizer step 1 to 10.
  GlobalBatch step_batch(int step) const;
  /// All datasets of a group, as whole tensors by name.
  GlobalTensors tensors(const std::string& group) const;
  std::vector<double> values(const std::string& dataset) const;
  double attribute(const std::string& name) const;

 private:
  std::string path_;
  std::int64_t file_;
};

}  // namespace llama3d::test
