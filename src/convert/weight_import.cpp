#include <fmt/format.h>

#include "base/error.hpp"
#include "checkpoint/checkpoint_attributes.hpp"
#include "comm/failure.hpp"
#include "convert/weight_output.hpp"
#include "convert/weight_transfer.hpp"
#include "io/checkpoint/checkpoint_file.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<WeightSource> open_input(const fs::path& input) {
  if (input.empty()) throw ConfigurationError("`input`: no folder given; name a Hugging Face folder");
  auto source = open_weights(input);
  if (source->is_checkpoint())
    throw ConfigurationError(fmt::format(
        "`input {}`: a checkpoint already; train, eval and export take it as it is", input.string()));
  source->check(source->model());
  return source;
}

/// The pieces whose middle lies in this rank's share of all bytes.
std::vector<TensorPiece> own_pieces(const std::vector<WeightTensor>& tensors, const ControlPlane& control) {
  std::int64_t all = 0, before = 0;
  for (const WeightTensor& tensor : tensors) all += bytes_of(tensor);
  std::vector<TensorPiece> own;
  for (const TensorPiece& piece : pieces_of(tensors)) {
    const double middle =
        (static_cast<double>(before) + static_cast<double>(piece.bytes) / 2) / static_cast<double>(all);
    if (static_cast<int>(middle * control.size()) == control.rank()) own.push_back(piece);
    before += piece.bytes;
  }
  return own;
}

/// Writes this rank's file and returns its manifest.
std::string write_rank_file(const WeightSource& source, const std::vector<WeightTensor>& tensors,
                            const fs::path& folder, const ControlPlane& control, const ShowProgress& show) {
  const auto pieces = own_pieces(tensors, control);
  TransferProgress progress;
  for (const TensorPiece& piece : pieces) progress.bytes_total += piece.bytes;
  RankFileWriter file(folder, control.rank());
  std::vector<std::byte> buffer;
  for (const TensorPiece& piece : pieces) {
    const WeightTensor& tensor = tensors[static_cast<std::size_t>(piece.tensor)];
    buffer.resize(static_cast<std::size_t>(piece.bytes));
    source.read(tensor.name, piece.rectangle, buffer.data(), tensor.dtype);
    file.write({"/model/" + tensor.name, tensor.dtype, tensor.shape, {piece.rectangle}, buffer.data()});
    progress.bytes_done += piece.bytes;
    progress.tensor = tensor.name;
    if (show) show(progress);
  }
  return file.finish();
}

}  // namespace

TransferSummary import_weights(const ImportOptions& options, ControlPlane& control,
                               const ShowProgress& show) {
  std::unique_ptr<WeightSource> source;
  const WeightOutput output{WeightOutput::Kind::checkpoint, options.input, options.output, options.overwrite};
  std::unique_ptr<io::PartialFolder> partial;  // rank 0's
  std::string temporary;
  fail_together(control, [&] {
    source = open_input(options.input);
    if (control.rank() != 0) return;
    partial = make_temporary(check_output(output));
    temporary = partial->path().string();
  });
  temporary = control.broadcast(temporary, 0);
  const auto tensors = tensors_to_write(*source, options.dtype);
  std::string manifest;
  fail_together(control, [&] {
    source->verify(control.rank(), control.size());
    manifest = write_rank_file(*source, tensors, temporary, control, show);
  });
  const auto manifests = control.all_gather(manifest);
  fail_together(control, [&] {
    if (control.rank() != 0) return;
    const CheckpointAttributes attributes{.model = source->model(), .origin = source->origin(), .run = {}};
    write_global_view(temporary, manifests, attributes.to_json());
    commit_checkpoint(temporary, check_output(output));  // what came into the folder since is no less dear
  });
  TransferSummary summary{std::ssize(tensors), 0, control.size(), {}};
  for (const WeightTensor& tensor : tensors) summary.bytes += bytes_of(tensor);
  return summary;
}

}  // namespace llama3d
