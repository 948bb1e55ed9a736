#pragma once
// Checkpoint folders, written in this order:
//
//   begin_checkpoint(final)              rank 0   makes the temporary folder
//   RankFileWriter: write..., finish     each     rank_00000.h5: the rectangles it owns, read back
//   write_global_view                    rank 0   checkpoint.h5: virtual datasets, attributes, manifest
//   commit_checkpoint                    rank 0   syncs and renames: a folder with its final name is complete
//   abandon_checkpoint                   rank 0   instead, once every rank has ended its part and any failed
//
// Tensors are stored under their global name in global coordinates, so any other partition can read them.
// A failed write throws CheckpointWriteError and leaves earlier checkpoints as they are.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "io/checkpoint/checkpoint_piece.hpp"

namespace llama3d {

/// A checkpoint could not be written (disk full, quota, I/O error). Training can go on; exit status 1
/// otherwise.
struct CheckpointWriteError : Error {
  explicit CheckpointWriteError(const std::string& message) : Error(ExitStatus::failure, message) {}
};

/// Writes one rank's file. After a failure every further call throws, and the file is no part of a
/// checkpoint.
class RankFileWriter {
 public:
  /// Creates `folder`/rank_`rank`.h5. Throws CheckpointWriteError.
  RankFileWriter(const std::filesystem::path& folder, int rank);
  ~RankFileWriter();
  RankFileWriter(RankFileWriter&&) noexcept;

  /// Writes the piece's rectangles; empty ones are left out. The data may be reused on return.
  void write(const CheckpointPiece& piece);
  /// Flushes, closes, syncs, opens again and compares the checksums of what it reads. Returns the rank's
  /// manifest for write_global_view (JSON: file, bytes, and dataset, shape, dtype, rectangle, bytes, crc32c
  /// of each block).
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Checks that the manifests' blocks cover every dataset exactly once (else ContractViolation: a bug of the
/// caller), then writes checkpoint.h5. `attributes_json` is a JSON object: integers, floats and strings
/// become attributes of the root group, other values attributes holding their JSON text; strings at most
/// 60,000 bytes.
void write_global_view(const std::filesystem::path& folder, const std::vector<std::string>& manifests,
                       const std::string& attributes_json);

/// Makes the empty folder to write in, beside `final_folder`: "step_00000100.partial". Leftovers of the same
/// name go.
std::filesystem::path begin_checkpoint(const std::filesystem::path& final_folder);
/// Syncs `temporary` and gives it its final name. An existing `final_folder` stays until the new one is in
/// place.
void commit_checkpoint(const std::filesystem::path& temporary, const std::filesystem::path& final_folder);
/// After a failure anywhere: removes the temporary folder, whose room the next checkpoint needs. No error:
/// why the checkpoint failed is what counts.
void abandon_checkpoint(const std::filesystem::path& final_folder);
/// Takes a checkpoint away: its name first, so that no half-removed folder looks like a checkpoint.
void remove_checkpoint(const std::filesystem::path& folder);
/// What is called `step_<digits>` in `directory`, newest (highest step) first, where a replacement was cut
/// off the old one as `step_<digits>.replaced`; empty when there is no such directory. Changes nothing and
/// looks into none: a file, or a link that leads nowhere, has such a name too, and is refused by
/// CheckpointReader. Throws CheckpointError when the directory can't be listed.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& directory);
/// For who writes to `directory`: gives the folder of a cut off replacement its name back and removes what
/// else killed runs left, partly written, replaced and partly removed folders.
void remove_leftovers(const std::filesystem::path& directory);
/// "step_00000100"
std::string checkpoint_folder_name(std::int64_t step);
/// 100 for ".../step_00000100"; -1 for any other name.
std::int64_t checkpoint_step(const std::filesystem::path& folder);

struct DatasetInfo {
  std::string name;  ///< "/model/model.norm.weight"
  std::vector<std::int64_t> shape;
  DType dtype = DType::fp32;
};

/// Reads a checkpoint on any grid, straight from the rank files. One object is for one thread.
/// Everything throws CheckpointError naming folder, file, dataset and reason.
class CheckpointReader {
 public:
  /// Checks the manifest's checksum, that it covers every dataset, and that all rank files are there in their
  /// right sizes.
  explicit CheckpointReader(const std::filesystem::path& folder);
  ~CheckpointReader();
  CheckpointReader(CheckpointReader&&) noexcept;

  const std::filesystem::path& folder() const;
  /// The JSON object given to write_global_view, checksummed with the manifest; its members by their names.
  const std::string& attributes() const;
  /// In name order.
  const std::vector<DatasetInfo>& datasets() const;
  /// Null when there is none of this name.
  const DatasetInfo* find(const std::string& dataset) const;

  /// Reads share `part` of `parts` (about equal in bytes) of all blocks and compares checksums. The union
  /// over all parts is the whole checkpoint. Returns the bytes checked.
  std::int64_t verify(int part = 0, int parts = 1) const;
  /// Compares the checksums of everything else that other programs read from the files: attributes, mappings,
  /// HDF5's headers. This program needs none of it, so a checkpoint that fails here may load. Returns the
  /// files without such a checksum, which older versions wrote.
  std::vector<std::string> verify_headers() const;
  /// Reads a rectangle into `out` (row-major, out_dtype, rectangle.elements() elements). Only the parts of
  /// blocks that intersect are read. Floating-point types are converted into each other (to nearest even).
  void read(const std::string& dataset, const Rectangle& rectangle, void* out, DType out_dtype) const;
  /// Number of rank files and their bytes.
  std::int64_t files() const;
  std::int64_t bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llama3d
