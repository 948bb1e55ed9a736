#include <fmt/format.h>

#include "base/error.hpp"
#include "comm/failure.hpp"
#include "convert/export_companions.hpp"
#include "convert/export_shards.hpp"
#include "convert/weight_output.hpp"
#include "convert/weight_transfer.hpp"
#include "io/posix/whole_folder.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

void check_export(const ExportOptions& options, WeightSource& source) {
  if (options.shard_bytes < 1)
    throw ConfigurationError(fmt::format("`shard_size {}`: must be at least 1 byte", options.shard_bytes));
  const fs::path& tokenizer = options.tokenizer;
  const char* right = "name a tokenizer.model, a tokenizer.json or a folder with one, or leave it out";
  if (tokenizer == "bytes")
    throw ConfigurationError(fmt::format("`tokenizer` bytes: it has no file to copy; {}", right));
  if (std::error_code ignored; !tokenizer.empty() && !fs::exists(tokenizer, ignored))
    throw ConfigurationError(
        fmt::format("`tokenizer {}`: there is no such file or folder; {}", tokenizer.string(), right));
  source.check(source.model());
}

}  // namespace

TransferSummary export_weights(const ExportOptions& options, ControlPlane& control,
                               const ShowProgress& show) {
  std::unique_ptr<WeightSource> source;
  const WeightOutput output{WeightOutput::Kind::model_folder, options.input, options.output,
                            options.overwrite};
  std::unique_ptr<io::PartialFolder> partial;  // rank 0's
  std::string temporary;
  fail_together(control, [&] {
    if (options.input.empty())
      throw ConfigurationError("`input`: no checkpoint given; name a checkpoint's folder");
    source = open_weights(options.input);
    check_export(options, *source);
    if (control.rank() != 0) return;
    partial = make_temporary(check_output(output));
    temporary = partial->path().string();
  });
  temporary = control.broadcast(temporary, 0);
  const auto tensors = tensors_to_write(*source, options.dtype);
  const auto shards = make_shards(tensors, options.shard_bytes);
  TransferSummary summary{std::ssize(tensors), 0, std::ssize(shards), {}};
  for (const WeightTensor& tensor : tensors) summary.bytes += bytes_of(tensor);
  const auto rank = static_cast<std::size_t>(control.rank()),
             ranks = static_cast<std::size_t>(control.size());
  fail_together(control, [&] {
    // Before the tensors, which take long.
    if (control.rank() == 0) summary.notes = write_companions(options, *source, shards, temporary);
  });
  fail_together(control, [&] {
    source->verify(control.rank(), control.size());
    ShardWriter writer(*source, temporary, show);
    for (std::size_t i = rank; i < shards.size(); i += ranks) writer.expect(shards[i]);
    for (std::size_t i = rank; i < shards.size(); i += ranks) writer.write(shards[i]);
  });
  fail_together(control, [&] {
    if (control.rank() != 0) return;
    open_weights(temporary)->check(source->model());
    put_in_place(temporary, check_output(output));  // what came into the folder since is no less dear
  });
  return summary;
}

}  // namespace llama3d
