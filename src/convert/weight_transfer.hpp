#pragma once
// Weights from one form on disk to the other: a Hugging Face folder to a checkpoint (import), a checkpoint to
// a Hugging Face folder (export). Both hold a piece of a tensor at a time, whatever the model's size.

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/weight_source.hpp"
#include "comm/control_plane.hpp"

namespace llama3d {

/// Element type of what is written: each tensor's own, or one for all.
enum class WeightDType { same, bf16, fp32 };
/// Parses "same", "bf16" or "fp32"; throws ConfigurationError.
WeightDType parse_weight_dtype(std::string_view word);
std::string_view name_of(WeightDType dtype);

struct TransferProgress {
  std::int64_t bytes_done = 0, bytes_total = 0;  ///< of what this rank writes
  std::string tensor;                            ///< the one that was written last
};
using ShowProgress = std::function<void(const TransferProgress&)>;

struct TransferSummary {
  std::int64_t tensors = 0, bytes = 0, files = 0;  ///< of all ranks
  std::vector<std::string> notes;                  ///< what a person should know of it
};

struct ImportOptions {
  std::filesystem::path input;   ///< Hugging Face folder
  std::filesystem::path output;  ///< checkpoint to make
  WeightDType dtype = WeightDType::same;
  bool overwrite = false;  ///< `output` may be a checkpoint, which is replaced when the new one is complete
};

/// Makes a checkpoint that holds weights only; weight_output.hpp has where. The ranks share the work by
/// bytes. Collective; CollectiveErrors, after which nothing is left of it.
TransferSummary import_weights(const ImportOptions& options, ControlPlane& control, const ShowProgress& show);

struct ExportOptions {
  std::filesystem::path input;   ///< checkpoint, or another Hugging Face folder
  std::filesystem::path output;  ///< folder to make
  WeightDType dtype = WeightDType::same;
  std::int64_t shard_bytes = 5'000'000'000;  ///< most of a file, unless one tensor is larger
  std::filesystem::path tokenizer;  ///< folder or file to copy; empty: the folder the weights once came from
  bool overwrite = false;  ///< `output` may be a model folder, which is replaced when the new one is complete
};

/// Makes a folder that transformers loads. Its token ids and generation_config.json are those of the folder
/// that the weights once came from; but where training here made them and the vocabulary is Llama 3's (128256
/// ids), generation_config.json is written in any case, and 128001 and 128009 end a generation beside what
/// ended it before: otherwise answers of a model that learnt conversations would not end. weight_output.hpp
/// has where. The ranks share the files. Collective; CollectiveErrors, after which nothing is left of it.
TransferSummary export_weights(const ExportOptions& options, ControlPlane& control, const ShowProgress& show);

/// Whole rows of one tensor, as many as make some MiB.
struct TensorPiece {
  std::int64_t tensor = 0;  ///< index into a list of tensors
  Rectangle rectangle;
  std::int64_t bytes = 0;
};
/// The pieces of every tensor, in order.
std::vector<TensorPiece> pieces_of(const std::vector<WeightTensor>& tensors);
/// The source's tensors in the model's order, each with the type to write it in.
std::vector<WeightTensor> tensors_to_write(const WeightSource& source, WeightDType dtype);
/// The bytes of all its elements.
std::int64_t bytes_of(const WeightTensor& tensor);

}  // namespace llama3d
